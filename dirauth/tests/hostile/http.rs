//! HTTP/1.0 as authorities speak it with each other, from either side.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use crate::PATIENCE;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub reason: String,
    pub body: String,
}

pub fn get(from: SocketAddr, path: &str) -> io::Result<Answer> {
    exchange(from, &format!("GET {path} HTTP/1.0\r\n\r\n"), "")
}

pub fn post(to: SocketAddr, path: &str, body: &str) -> io::Result<Answer> {
    exchange(to, &format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len()), body)
}

fn exchange(with: SocketAddr, head: &str, body: &str) -> io::Result<Answer> {
    let mut socket = TcpStream::connect(with)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Who refuses a body for its length may not read it.
    let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body.as_bytes()));
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let broken = || io::Error::other(format!("no answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let mut words = head.lines().next().unwrap_or_default().splitn(3, ' ').skip(1);
    let status = words.next().and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    Ok(Answer { status, reason: words.next().unwrap_or_default().to_owned(), body: body.to_owned() })
}

/// Answers requests for as long as the tests run: `respond` gets the path and what was posted, and returns a body, or
/// nothing for a 404.
pub fn serve(
    listener: TcpListener,
    respond: impl Fn(&str, Option<String>) -> Option<String> + Send + Sync + 'static,
) {
    let respond = Arc::new(respond);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let respond = respond.clone();
            // Who breaks off gets no answer.
            std::thread::spawn(move || answer(socket, &*respond));
        }
    });
}

fn answer(socket: TcpStream, respond: &dyn Fn(&str, Option<String>) -> Option<String>) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(&socket);
    let (mut request, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut request)?;
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = request.starts_with("POST ").then(|| String::from_utf8_lossy(&body).into_owned());
    let answer = match respond(request.split(' ').nth(1).unwrap_or_default(), body) {
        Some(body) => format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        None => "HTTP/1.0 404 Not found\r\n\r\n".to_owned(),
    };
    (&socket).write_all(answer.as_bytes())
}
