//! A client of a few lines: one request a connection, cookies and tokens as headers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Somebody at a server.
#[derive(Clone, Debug)]
pub(crate) struct Web {
    pub(crate) place: String,
    host: String,
    headers: Vec<String>,
    pub(crate) csrf: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    pub(crate) fn location(&self) -> String {
        self.header("location").unwrap_or_default()
    }

    /// `name=value` of the session's cookie.
    pub(crate) fn cookie(&self) -> String {
        let cookies = self.head.iter().filter(|(key, _)| key == "set-cookie").map(|(_, value)| value);
        let session = cookies.into_iter().find(|value| value.contains("certbus_session="));
        session.and_then(|value| value.split(';').next()).unwrap_or_default().to_owned()
    }

    /// The value of a hidden field.
    pub(crate) fn field(&self, name: &str) -> String {
        let rest = self.body.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap_or_default();
        rest.split('"').next().unwrap_or_default().to_owned()
    }
}

impl Web {
    pub(crate) fn at(place: &str) -> Self {
        Self { place: place.to_owned(), host: place.to_owned(), headers: Vec::new(), csrf: None }
    }

    pub(crate) fn with_header(&self, line: &str) -> Self {
        let mut with = self.clone();
        with.headers.push(line.to_owned());
        with
    }

    /// Under another name.
    pub(crate) fn named(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    pub(crate) fn with_cookie(&self, cookie: &str) -> Self {
        self.with_header(&format!("cookie: {cookie}"))
    }

    pub(crate) fn without_csrf(&self) -> Self {
        Self { csrf: None, ..self.clone() }
    }

    pub(crate) fn login(&self, name: &str, password: &str) -> Self {
        let answer = self.form("/login", &[("name", name), ("password", password)]);
        assert_eq!(answer.status, 303, "{}", answer.body);
        let session = self.with_cookie(&answer.cookie());
        let csrf = session.get("/account").field("csrf");
        assert_eq!(csrf.len(), 43);
        Self { csrf: Some(csrf), ..session }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "").unwrap()
    }

    pub(crate) fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.try_form(path, fields).unwrap()
    }

    pub(crate) fn try_form(&self, path: &str, fields: &[(&str, &str)]) -> Option<Answer> {
        let csrf = self.csrf.iter().map(|csrf| ("csrf", csrf.as_str()));
        let pairs = fields.iter().copied().chain(csrf).map(|(key, value)| format!("{key}={}", escaped(value)));
        let body = pairs.collect::<Vec<_>>().join("&");
        self.send("POST", path, "application/x-www-form-urlencoded", &body).ok()
    }

    pub(crate) fn json(&self, method: &str, path: &str, body: &serde_json::Value) -> Answer {
        self.send(method, path, "application/json", &body.to_string()).unwrap()
    }

    pub(crate) fn text(&self, method: &str, path: &str, kind: &str, body: &str) -> Answer {
        self.send(method, path, kind, body).unwrap()
    }

    fn open(&self, method: &str, path: &str, kind: &str, body: &str) -> std::io::Result<BufReader<TcpStream>> {
        let mut stream = TcpStream::connect(&self.place)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.host);
        self.headers.iter().for_each(|line| head.push_str(&format!("{line}\r\n")));
        if !kind.is_empty() {
            head.push_str(&format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len()));
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
        Ok(BufReader::new(stream))
    }

    /// The head of an answer alone: some never end.
    pub(crate) fn status(&self, method: &str, path: &str) -> Answer {
        let kind = if method == "GET" { "" } else { "application/x-www-form-urlencoded" };
        let csrf = self.csrf.as_ref().map_or_else(String::new, |csrf| format!("csrf={csrf}"));
        let mut reader = self.open(method, path, kind, if kind.is_empty() { "" } else { &csrf }).unwrap();
        let (status, head) = head(&mut reader).unwrap();
        Answer { status, head, body: String::new() }
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &str) -> std::io::Result<Answer> {
        let mut reader = self.open(method, path, kind, body)?;
        let (status, head) = head(&mut reader)?;
        let mut bytes = Vec::new();
        let chunked = head.iter().any(|(key, value)| key == "transfer-encoding" && value == "chunked");
        if chunked {
            while let Some(chunk) = chunk(&mut reader)? {
                bytes.extend(chunk);
            }
        } else {
            reader.read_to_end(&mut bytes)?;
        }
        Ok(Answer { status, head, body: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// Each line of an answer that goes on.
    pub(crate) fn lines(&self, path: &str) -> Receiver<String> {
        let mut reader = self.open("GET", path, "", "").unwrap();
        assert_eq!(head(&mut reader).unwrap().0, 200);
        let (send, receive) = channel();
        std::thread::spawn(move || {
            while let Ok(Some(chunk)) = chunk(&mut reader) {
                if send.send(String::from_utf8_lossy(&chunk).into_owned()).is_err() {
                    break;
                }
            }
        });
        receive
    }

    /// What comes as events, each as it was sent.
    pub(crate) fn events(&self, path: &str) -> Receiver<String> {
        let mut reader = self.open("GET", path, "", "").unwrap();
        assert_eq!(head(&mut reader).unwrap().0, 200);
        let (send, receive) = channel();
        std::thread::spawn(move || {
            while let Ok(Some(chunk)) = chunk(&mut reader) {
                let text = String::from_utf8_lossy(&chunk).into_owned();
                if text.contains("event: polled") && send.send(text).is_err() {
                    break;
                }
            }
        });
        receive
    }
}

type Head = (u16, Vec<(String, String)>);

fn head(reader: &mut impl BufRead) -> std::io::Result<Head> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {line:?}")))?;
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((key, value)) => head.push((key.to_lowercase(), value.to_owned())),
            None => return Ok((status, head)),
        }
    }
}

fn chunk(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
    let mut bytes = vec![0; size + 2];
    reader.read_exact(&mut bytes)?;
    bytes.truncate(size);
    Ok((size > 0).then_some(bytes))
}

fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
