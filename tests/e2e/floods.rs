//! Floods of connections: clients that trickle, stall or come in thousands. Memory stays bounded, others are served meanwhile, and who
//! floods is told so.
//!
//! `SPOOLER_FLOOD=10000` is the full figure; the checks are content with fewer. What the bounds are is in README.md, "Floods".

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use crate::world::{PATIENCE, World};
use crate::{IN, smtp};

/// Hosts that a flood comes from: 127.0.1.1 and on.
const HOSTS: usize = 40;
/// Peak of the resident memory that a process may have under any flood of connections with the default limits, KiB: supervisor, and a
/// worker that listens.
pub(crate) const SUPERVISOR_KIB_MAX: u64 = 96 << 10;
pub(crate) const WORKER_KIB_MAX: u64 = 96 << 10;

const MAIL: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

fn local() -> String {
    format!("{IN}[provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{{dir}}/mail/local\"\n")
}

fn number_of(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// The most memory that a process ever had, KiB.
pub(crate) fn peak_kib(pid: nix::unistd::Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Nobody has used more memory than the README says.
pub(crate) fn check_memory(world: &World, workers: &[&str]) {
    let supervisor = peak_kib(world.pid());
    let mut text = format!("peak memory: supervisor {} MiB", supervisor >> 10);
    assert!(supervisor <= SUPERVISOR_KIB_MAX, "supervisor: {supervisor} KiB");
    for name in workers {
        let peak = peak_kib(world.worker_pid(name).unwrap());
        text += &format!(", {name} {} MiB", peak >> 10);
        assert!(peak <= WORKER_KIB_MAX, "{name}: {peak} KiB");
    }
    println!("{text}");
}

/// A connection from one of many hosts.
fn connect_from(host: usize, port: u16) -> Option<TcpStream> {
    let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let last = u8::try_from(host % HOSTS).unwrap() + 1;
    bind(stream.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, last), 0))).unwrap();
    connect(stream.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))).ok()?;
    let stream = TcpStream::from(stream);
    stream.set_nonblocking(true).unwrap();
    Some(stream)
}

/// What has come over a connection so far.
fn heard(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Sends one message over a connection of its own, and tries again when it is told to; gives the attempts.
fn send_stubbornly(port: u16) -> u32 {
    let (start, mut attempts) = (Instant::now(), 0);
    loop {
        attempts += 1;
        if let Some(mut client) = smtp::Client::connect(port)
            && let Some(reply) = client.send("a@b.test", &["x@local.test"], MAIL)
            && reply.starts_with("250")
        {
            return attempts;
        }
        assert!(start.elapsed() < PATIENCE, "nobody is served");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn raise_descriptors() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap()
}

/// Ends what runs beside, whatever happens.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A client that floods, and what it was told.
struct Flooder<S> {
    stream: S,
    said: String,
}

/// Sends a byte over each connection now and then, as long as it is wanted; SMTP clients wait to be greeted.
fn trickle<S: Read + Write>(flooders: &mut [Flooder<S>], greeting: &str, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        for flooder in &mut *flooders {
            flooder.said += &heard(&mut flooder.stream);
            if flooder.said.starts_with(greeting) {
                let _ = flooder.stream.write(b"x");
            }
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
fn thousands_of_connections_that_trickle_keep_nobody_out() {
    let flood = number_of("SPOOLER_FLOOD", 1500).min(raise_descriptors() - 1000);
    let world = World::running(&local());
    let (port, over) = (world.port("submission"), AtomicBool::new(false));
    let start = Instant::now();
    let streams = (0..flood).filter_map(|host| connect_from(host, port));
    let mut flooders: Vec<_> = streams.map(|stream| Flooder { stream, said: String::new() }).collect();
    println!("{} connections from {HOSTS} hosts in {:?}", flooders.len(), start.elapsed());
    std::thread::scope(|scope| {
        scope.spawn(|| trickle(&mut flooders, "220", &over));
        let _over = Over(&over);
        for number in 0..10 {
            let start = Instant::now();
            let attempts = send_stubbornly(port);
            println!("message {number} in spite of the flood: {:?}, {attempts} attempts", start.elapsed());
        }
        assert!(world.status().is_some());
    });
    let mut told = 0;
    for flooder in &mut flooders {
        flooder.said += &heard(&mut flooder.stream);
        told += usize::from(flooder.said.lines().any(|line| line.starts_with("421 4.7.0")));
    }
    println!("{told} of {} were told 421", flooders.len());
    assert!(told + 250 >= flooders.len(), "all but those that have a place are told");
    check_memory(&world, &["submission"]);
    drop(flooders);
    world.wait_empty();
}

#[test]
fn a_trickle_is_silence() {
    let world = World::running(&local().replace("smtp-in\"", "smtp-in\"\ntimeout = \"1s\""));
    let port = world.port("submission");
    for in_content in [false, true] {
        let mut client = smtp::Client::connect(port).unwrap();
        if in_content {
            for line in ["MAIL FROM:<a@b.test>", "RCPT TO:<x@local.test>", "DATA"] {
                client.command(line).unwrap();
            }
        }
        let mut stream = client.share();
        let ended = AtomicBool::new(false);
        let said = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    let _ = stream.write(b"x");
                    std::thread::park_timeout(Duration::from_millis(50));
                }
            });
            let _over = Over(&ended);
            client.reply()
        });
        assert!(said.as_deref().is_some_and(|said| said.starts_with("421 4.4.2")), "in content {in_content}: {said:?}");
    }
}

#[test]
fn half_requests_on_the_control_socket_keep_nobody_out() {
    raise_descriptors();
    let world = World::running(&local());
    let over = AtomicBool::new(false);
    let openings: [&[u8]; 4] = [
        b"GET /v1/sta",
        b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{",
        b"POST /v1/messages/do HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        b"",
    ];
    let mut streams = Vec::new();
    for number in 0..400 {
        let Ok(mut stream) = UnixStream::connect(world.path("control.sock")) else { continue };
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write(openings[number % 4]);
        streams.push(Flooder { stream, said: String::new() });
    }
    std::thread::scope(|scope| {
        scope.spawn(|| trickle(&mut streams, "", &over));
        let _over = Over(&over);
        for number in 0..10 {
            let start = Instant::now();
            world.wait_for("an answer", |world| world.status());
            let submit = ["submit", "--from", "a@b.test", "--to", "x@local.test"];
            world.wait_for("a submission", |world| {
                world.client("spoolctl", &submit, MAIL).status.success().then_some(())
            });
            println!("request {number} in spite of the flood: {:?}", start.elapsed());
        }
    });
    let mut told = 0;
    for flooder in &mut streams {
        flooder.said += &heard(&mut flooder.stream);
        let text = &flooder.said;
        let clear = ["HTTP/1.1 408 ", "HTTP/1.1 503 ", "HTTP/1.1 400 "].iter().any(|head| text.starts_with(head));
        told += usize::from(clear && text.contains("\"error\""));
    }
    println!("{told} of {} were told 400, 408 or 503", streams.len());
    assert!(told > 0);
    check_memory(&world, &[]);
    drop(streams);
    world.wait_empty();
}
