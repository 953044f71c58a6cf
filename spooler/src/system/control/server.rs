//! The server itself: one thread, a single-threaded runtime, a bounded number of connections (`hall`), one request each.
//!
//! A head that does not come in time ends its connection, and so does a client that does not read its answer. Whoever is sent away is told
//! so as HTTP says it.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request as HttpRequest, StatusCode};
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Bridge;
use super::access::{Access, Peer, identify, identify_at_once};
use super::desk::{Desk, WATCHERS_MAX};
use super::hall::{Coming, Hall, Place};
use super::patience::Patient;
use super::refusal::Refusal;
use super::{aliases, history, provider, queue, submit, watch as watching};

/// Connections that are accepted, whether there is a place for them or not: what is beyond waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 448;
/// How long somebody who is sent away may take to be told.
const FAREWELL: Duration = Duration::from_millis(100);
/// How long the head of a request may take.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a client may leave its answer unread.
const UNREAD_MAX: Duration = Duration::from_secs(60);
/// How long requests may go on when the server stops.
const GRACE: Duration = Duration::from_secs(2);
/// How long accepting rests when the process has no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What the configuration says about the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlOptions {
    /// Who may.
    pub access: Access,
    /// Bytes of the largest message that is taken.
    pub message_bytes_max: u64,
}

/// The running server. Stops when dropped.
#[derive(Debug)]
pub struct ControlServer {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Accepts nothing more, lets what is under way end for up to two seconds, and waits for that.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the control socket panicked");
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Serves requests that come over `listener`.
///
/// # Errors
/// If the thread or its runtime cannot be made.
pub fn start(listener: StdUnixListener, options: ControlOptions, bridge: Arc<dyn Bridge>) -> io::Result<ControlServer> {
    let (stop, stopping) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    listener.set_nonblocking(true)?;
    let listener = {
        let _context = runtime.enter();
        UnixListener::from_std(listener)?
    };
    let desk = Arc::new(Desk {
        bridge,
        access: options.access,
        message_bytes_max: options.message_bytes_max,
        next_upload: AtomicU64::new(1),
        watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
        stopping,
    });
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        runtime.block_on(serve(listener, desk));
        // A look-up in the user database may still be stuck; it must not hold up the end.
        runtime.shutdown_background();
    })?;
    Ok(ControlServer { stop, thread: Some(thread) })
}

/// What can be asked for.
pub(super) fn routes(desk: Arc<Desk>) -> Router {
    let nothing_here = || async { Refusal::not_found("There is nothing at this path") };
    let wrong_method = || async { Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "This path takes another method") };
    Router::new()
        .route("/v1/messages", get(queue::list).post(submit::submit))
        .route("/v1/messages/do", post(queue::act))
        .route("/v1/messages/count", get(queue::count))
        .route("/v1/messages/{id}", get(queue::detail))
        .route("/v1/messages/{id}/content", get(queue::content))
        .route("/v1/history", get(history::list))
        .route("/v1/history/{id}", get(history::detail))
        .route("/v1/aliases/way", post(aliases::way))
        .route("/v1/aliases/read", post(aliases::read))
        .route("/v1/status", get(watching::status))
        .route("/v1/status/watch", get(watching::watch))
        .route("/v1/flush", post(watching::flush))
        .route("/v1/providers/{name}", get(provider::detail))
        .route("/v1/providers/{name}/do", post(provider::act))
        .route("/v1/providers/{name}/logon", post(provider::log_on))
        .route("/v1/validate", post(provider::validate_all))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .with_state(desk)
}

async fn serve(listener: UnixListener, desk: Arc<Desk>) {
    let router = routes(Arc::clone(&desk));
    let hall = Hall::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut stopping = desk.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, place)) => {
                let (desk, router, hall) = (Arc::clone(&desk), router.clone(), Arc::clone(&hall));
                connections.spawn(async move {
                    connection(stream, desk, router, hall).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept");
                sleep(ACCEPT_REST).await;
            }
        }
    }
    drop(listener);
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection(stream: UnixStream, desk: Arc<Desk>, router: Router, hall: Arc<Hall>) {
    let Some(peer) = peer_of(&stream, desk.access).await else { return };
    match hall.enter(peer.uid).await {
        Some(place) => converse(stream, peer, router, Arc::new(place)).await,
        None => {
            let refusal = Refusal::temporary("Too many connections; try again in a moment");
            send_away(stream, &refusal).await;
        }
    }
}

/// Answers one request of a peer that has a place.
pub(super) async fn converse<S>(stream: S, peer: Peer, router: Router, place: Arc<Place>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let of_request = Arc::clone(&place);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: HttpRequest<Incoming>| {
        let mut request = request.map(|body| Body::new(Coming::new(body, Arc::clone(&of_request))));
        request.extensions_mut().insert(peer);
        let answer = router.call(request);
        async move { answer.await.map_err(|error: Infallible| error) }
    });
    let stream = TokioIo::new(Patient::new(stream, UNREAD_MAX));
    let mut served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(stream, service);
    let too_late = tokio::select! {
        result = &mut served => match result {
            Ok(()) => return,
            Err(error) if error.is_timeout() => "The request did not come in time",
            Err(error) => {
                tracing::debug!(%error, uid = peer.uid, "a connection of the control socket broke off");
                return;
            }
        },
        () = place.lost() => "The request took long to come, and others wait for its place; try again",
    };
    let stream = served.into_parts().io.into_inner().into_inner();
    send_away(stream, &Refusal::new(StatusCode::REQUEST_TIMEOUT, too_late)).await;
}

/// Tells a client without a place, or that has lost it, as HTTP says it.
async fn send_away(mut stream: impl AsyncWrite + Unpin, refusal: &Refusal) {
    let body = serde_json::to_string(&refusal.error).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        refusal.status,
        body.len()
    );
    let _ = timeout(FAREWELL, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

/// Who is at the other end, as the kernel and the user database say.
async fn peer_of(stream: &UnixStream, access: Access) -> Option<Peer> {
    let credentials = stream.peer_cred().ok()?;
    let (uid, gid) = (credentials.uid(), credentials.gid());
    let peer = match identify_at_once(&access, uid, gid) {
        Some(peer) => peer,
        None => tokio::task::spawn_blocking(move || identify(&access, uid, gid)).await.ok()?,
    };
    Some(peer.in_process(&access, credentials.pid()))
}
