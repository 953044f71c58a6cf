//! The parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (6152), SMTPUTF8 (6531), RET, ENVID, NOTIFY, ORCPT (3461), AUTH (4954). Pure.
//!
//! Each must be exactly as its RFC says and stand once; what is not offered is refused, so that a wish is never silently dropped.

use spooler_protocol::message::{BodyType, Notify, Ret, is_dsn_parameter};

use super::reply::Reply;

/// What MAIL may carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MailParameters {
    /// Bytes that the client announces.
    pub(super) size: Option<u64>,
    /// What the body is declared as.
    pub(super) body: Option<BodyType>,
    /// Whether RFC 6531 is wanted.
    pub(super) smtputf8: bool,
    /// How much a failure report returns.
    pub(super) ret: Option<Ret>,
    /// The envelope identifier, in xtext.
    pub(super) envid: Option<String>,
    /// Whether the identity of the sender was given; it is not used (RFC 4954 5 allows that).
    pub(super) auth: bool,
}

/// What RCPT may carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RcptParameters {
    /// Which reports are wanted.
    pub(super) notify: Option<Notify>,
    /// The original recipient, `type;address` in xtext.
    pub(super) orcpt: Option<String>,
}

/// Bytes of an ENVID (RFC 3461 4.4).
const ENVID_BYTES_MAX: usize = 100;

/// Reads the parameters of MAIL.
pub(super) fn mail(text: &str) -> Result<MailParameters, Reply> {
    let mut found = MailParameters::default();
    for (key, value) in words(text) {
        match (key.to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(value)) => once(&mut found.size, size(value), key)?,
            ("BODY", Some(value)) => once(&mut found.body, body(value), key)?,
            ("RET", Some(value)) => once(&mut found.ret, ret(value), key)?,
            ("ENVID", Some(value)) => {
                let good = value.len() <= ENVID_BYTES_MAX && is_xtext(value, false);
                once(&mut found.envid, good.then(|| value.to_owned()), key)?;
            }
            ("SMTPUTF8", None) if !found.smtputf8 => found.smtputf8 = true,
            ("AUTH", Some(value)) if !found.auth && is_xtext(value, false) => found.auth = true,
            ("SIZE" | "BODY" | "RET" | "ENVID" | "SMTPUTF8" | "AUTH", _) => return Err(bad(key)),
            _ => return Err(unknown(key)),
        }
    }
    Ok(found)
}

/// Reads the parameters of RCPT.
pub(super) fn rcpt(text: &str) -> Result<RcptParameters, Reply> {
    let mut found = RcptParameters::default();
    for (key, value) in words(text) {
        match (key.to_ascii_uppercase().as_str(), value) {
            ("NOTIFY", Some(value)) => once(&mut found.notify, value.parse().ok(), key)?,
            ("ORCPT", Some(value)) => once(&mut found.orcpt, is_orcpt(value).then(|| value.to_owned()), key)?,
            ("NOTIFY" | "ORCPT", None) => return Err(bad(key)),
            _ => return Err(unknown(key)),
        }
    }
    Ok(found)
}

fn words(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let split = |word: &'_ str| -> (usize, bool) { word.find('=').map_or((word.len(), false), |at| (at, true)) };
    text.split(' ').filter(|word| !word.is_empty()).map(move |word| {
        let (at, has_value) = split(word);
        let (key, value) = word.split_at(at);
        (key, has_value.then(|| value.get(1..).unwrap_or_default()))
    })
}

fn once<T>(slot: &mut Option<T>, value: Option<T>, key: &str) -> Result<(), Reply> {
    if slot.is_some() || value.is_none() {
        return Err(bad(key));
    }
    *slot = value;
    Ok(())
}

fn bad(key: &str) -> Reply {
    Reply::with_text(501, "5.5.4", format!("Bad or repeated parameter {}", shown(key)))
}

fn unknown(key: &str) -> Reply {
    Reply::with_text(555, "5.5.4", format!("Parameter {} is not supported here", shown(key)))
}

fn shown(key: &str) -> String {
    key.chars().take(40).collect()
}

fn size(text: &str) -> Option<u64> {
    let digits = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn body(text: &str) -> Option<BodyType> {
    match text.to_ascii_uppercase().as_str() {
        "7BIT" => Some(BodyType::SevenBit),
        "8BITMIME" => Some(BodyType::EightBit),
        _ => None,
    }
}

fn ret(text: &str) -> Option<Ret> {
    match text.to_ascii_uppercase().as_str() {
        "FULL" => Some(Ret::Full),
        "HDRS" => Some(Ret::Headers),
        _ => None,
    }
}

/// Whether a value is xtext (RFC 3461 4) that decodes to printable characters: nothing that could break out of a line later.
fn is_xtext(text: &str, utf8: bool) -> bool {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '+' => {
                let Some((hex, tail)) = rest.split_at_checked(2) else { return false };
                let upper = hex.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
                let code = u8::from_str_radix(hex, 16).unwrap_or(0);
                if !upper || code < b' ' || code == 0x7f {
                    return false;
                }
                rest = tail;
            }
            '=' if !utf8 => return false,
            '!'..='~' => {}
            _ if !utf8 || c.is_ascii() || c.is_control() || c.is_whitespace() => return false,
            _ => {}
        }
    }
    is_dsn_parameter(text)
}

/// Whether a value is `type;address`. The type `utf-8` may hold UTF-8 and `\x{…}` (RFC 6533 3).
fn is_orcpt(text: &str) -> bool {
    let Some((kind, address)) = text.split_once(';') else { return false };
    let kind_ok = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let utf8 = kind.eq_ignore_ascii_case("utf-8");
    kind_ok
        && !address.is_empty()
        && is_dsn_parameter(text)
        && is_xtext(address, utf8)
        && (!utf8 || !has_embedded_control(address))
}

/// Whether `\x{…}` stands for a control character, or for none at all.
fn has_embedded_control(text: &str) -> bool {
    text.split("\\x{").skip(1).any(|part| {
        let code = part.split_once('}').and_then(|(hex, _)| u32::from_str_radix(hex, 16).ok());
        code.and_then(char::from_u32).is_none_or(char::is_control)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_takes_what_is_offered() {
        let all = " SIZE=77 body=8bitmime SMTPUTF8  RET=HDRS ENVID=QQ+2B314159 AUTH=<> ";
        let found = mail(all).unwrap();
        let expected = MailParameters {
            size: Some(77),
            body: Some(BodyType::EightBit),
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("QQ+2B314159".to_owned()),
            auth: true,
        };
        assert_eq!(found, expected);
        assert_eq!(mail(" SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
        assert_eq!(mail("").unwrap(), MailParameters::default());
    }

    #[test]
    fn mail_refuses_the_rest() {
        for text in [
            "SIZE",
            "SIZE=",
            "SIZE=-1",
            "SIZE=1x",
            "SIZE=1 SIZE=1",
            "BODY=BINARYMIME",
            "BODY",
            "RET=ALL",
            "ENVID=a=b",
            "ENVID=a+0D+0Ab",
            "ENVID=a+b",
            "ENVID=",
            "SMTPUTF8=1",
            "SMTPUTF8 SMTPUTF8",
            "ENVID=\u{e4}",
        ] {
            assert_eq!(mail(text).unwrap_err().code, 501, "{text}");
        }
        for text in ["MT-PRIORITY=3", "X=1", "NOTIFY=NEVER", "=", ">", "HOLDFOR=5"] {
            let reply = mail(text).unwrap_err();
            assert_eq!((reply.code, reply.enhanced.as_ref()), (555, "5.5.4"), "{text}");
        }
    }

    #[test]
    fn rcpt_takes_dsn_wishes_and_nothing_else() {
        let found = rcpt(" NOTIFY=SUCCESS,delay ORCPT=rfc822;a+2Bb@c").unwrap();
        assert_eq!(found.notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!(found.orcpt.as_deref(), Some("rfc822;a+2Bb@c"));
        assert!(rcpt("ORCPT=utf-8;ä\\x{20AC}@c").is_ok());
        for text in [
            "NOTIFY=",
            "NOTIFY",
            "NOTIFY=NEVER,DELAY",
            "NOTIFY=NEVER NOTIFY=NEVER",
            "ORCPT=a@b",
            "ORCPT=;a",
            "ORCPT=rfc822;",
            "ORCPT=rfc822;a+0Ab",
            "ORCPT=rfc822;\u{e4}",
            "ORCPT=utf-8;\\x{0A}",
            "ORCPT=utf-8;\\x{D800}",
            "ORCPT=rfc822;a=b",
        ] {
            assert_eq!(rcpt(text).unwrap_err().code, 501, "{text}");
        }
        assert_eq!(rcpt("SIZE=1").unwrap_err().code, 555);
    }
}
