//! Whether something answers HTTP as expected.

use std::{
    error::Error as _,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use coredinator_core::{FieldError, HealthProbe, HttpCheck, ProbeError, ProbeReport, ProbeSpec, ProbeTarget, field};
use hyper::{
    Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use super::{NoAnswer, connect, describe, pool::Pool, wrong_kind};

/// Asks `http://host:port/path`, in HTTP/1.1, without a proxy and without following redirects.
///
/// A status that is not expected fails, 429 warns; then the expected headers and the expected body must be there.
/// Connections are kept open between checks. Of an answer at most 64 KiB of headers and 64 KiB of body are read; the
/// body is waited for only if one is expected.
#[derive(Debug)]
pub struct HttpProbe {
    idle: Pool<TcpStream>,
}

impl HttpProbe {
    const MAX_BODY: usize = 64 * 1024;
    const MAX_HEAD: usize = 64 * 1024;
    /// How long to wait for the rest of a body that nobody wants, so as to keep the connection.
    const LINGER: Duration = Duration::from_millis(5);

    /// A probe without connections yet.
    #[must_use]
    pub fn new() -> Self {
        Self { idle: Pool::new() }
    }

    async fn ask(&self, target: &ProbeTarget, check: &HttpCheck) -> Result<ProbeReport, NoAnswer> {
        if let Some(stream) = self.idle.take(&target.host, target.port) {
            // The other side may have closed it while it was idle: then a new one tells.
            if let Ok(report) = self.exchange(stream, target, check).await {
                return Ok(report);
            }
        }
        let stream = match connect(&target.host, target.port).await {
            Err(NoAnswer::NotAsked(_)) => {
                // Idle connections may be what used up the file descriptors.
                self.idle.clear();
                connect(&target.host, target.port).await?
            }
            other => other?,
        };
        self.exchange(stream, target, check).await
    }

    async fn exchange(
        &self,
        stream: TcpStream,
        target: &ProbeTarget,
        check: &HttpCheck,
    ) -> Result<ProbeReport, NoAnswer> {
        let request = request(target, check).map_err(NoAnswer::NotAsked)?;
        let mut connection = Connection::open(stream).await.map_err(|error| NoAnswer::Failed(tell(&error)))?;
        let response = connection.send(request).await.map_err(|error| NoAnswer::Failed(tell(&error)))?;
        let verdict = judge_head(&response, check);
        let stays = stays_open(&response);
        let pass = ProbeReport::pass(said(response.status()));
        let mut body = response.into_body();
        let (report, whole) = match (&verdict, &check.expected_body) {
            (None, Some(expected)) => {
                let mut text = Vec::new();
                let read = connection.read(&mut body, Self::MAX_BODY, |data| text.extend_from_slice(data)).await;
                let whole = read.map_err(|error| NoAnswer::Failed(tell(&error)))?;
                let found = String::from_utf8_lossy(&text).contains(expected.as_str());
                (if found { None } else { Some(ProbeReport::fail("the body does not hold what is expected")) }, whole)
            }
            _ => {
                let rest = connection.read(&mut body, Self::MAX_BODY, |_| ());
                (verdict, matches!(tokio::time::timeout(Self::LINGER, rest).await, Ok(Ok(true))))
            }
        };
        drop(body);
        if whole
            && stays
            && let Some(stream) = connection.into_idle()
        {
            self.idle.put(&target.host, target.port, stream, Instant::now());
        }
        Ok(report.unwrap_or(pass))
    }
}

impl Default for HttpProbe {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl HealthProbe for HttpProbe {
    fn kind(&self) -> String {
        "http".to_owned()
    }

    fn validate(&self, spec: &ProbeSpec) -> Vec<FieldError> {
        let ProbeSpec::Http(check) = spec else { return vec![wrong_kind(spec, "http")] };
        let mut errors = Vec::new();
        if let Err(error) = check.path.parse::<Uri>() {
            errors.push(FieldError::new("/path", error.to_string()));
        }
        for (pointer, headers) in [("/headers", &check.headers), ("/expected_headers", &check.expected_headers)] {
            for (name, value) in headers {
                if name.parse::<HeaderName>().is_err() {
                    errors.push(FieldError::new(field::join(pointer, name), "not the name of a header"));
                } else if value.parse::<HeaderValue>().is_err() {
                    errors.push(FieldError::new(field::join(pointer, name), "not the value of a header"));
                }
            }
        }
        errors
    }

    async fn check(&self, target: &ProbeTarget) -> Result<ProbeReport, ProbeError> {
        match &*target.spec {
            ProbeSpec::Http(check) => self.ask(target, check).await.or_else(NoAnswer::report),
            other => Err(ProbeError { message: wrong_kind(other, "http").detail }),
        }
    }
}

/// What is sent; the reason if that cannot be written down.
fn request(target: &ProbeTarget, check: &HttpCheck) -> Result<Request<String>, String> {
    let bare = target.host.contains(':') && !target.host.starts_with('[');
    let host = match bare {
        true => format!("[{}]:{}", target.host, target.port),
        false => format!("{}:{}", target.host, target.port),
    };
    let mut request = Request::get(check.path.as_str())
        .header(HOST, host)
        .header(USER_AGENT, concat!("coredinator/", env!("CARGO_PKG_VERSION")))
        .body(String::new())
        .map_err(|error| error.to_string())?;
    for (name, value) in &check.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is not the name of a header"))?;
        let value: HeaderValue = value.parse().map_err(|_| format!("{name} has a value that no header can have"))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// The verdict that follows from status and headers; `None`: so far as expected.
fn judge_head(response: &Response<Incoming>, check: &HttpCheck) -> Option<ProbeReport> {
    let status = response.status();
    if !check.expected_status.iter().any(|range| range.contains(status.as_u16())) {
        return Some(match status {
            StatusCode::TOO_MANY_REQUESTS => ProbeReport::warn(said(status)),
            _ => ProbeReport::fail(said(status)),
        });
    }
    let missing = check.expected_headers.iter().find(|(name, value)| {
        !response.headers().get_all(name.as_str()).iter().any(|found| found.as_bytes() == value.as_bytes())
    });
    missing.map(|(name, value)| ProbeReport::fail(format!("{}, but no header {name}: {value}", said(status))))
}

/// Whether the other side means to take another request on the same connection.
fn stays_open(response: &Response<Incoming>) -> bool {
    let closes = |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().windows(5).any(|word| word == b"close");
    response.version() == Version::HTTP_11 && !response.headers().get_all(CONNECTION).iter().any(closes)
}

/// A status, for people.
fn said(status: StatusCode) -> String {
    format!("HTTP {}", status.as_u16())
}

/// One HTTP/1.1 connection. It is moved forward by whoever uses it alone, so that no task of its own outlives a check
/// that is given up: dropping it closes it.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<String>,
    driver: http1::Connection<TokioIo<TcpStream>, String>,
    open: bool,
}

impl Connection {
    async fn open(stream: TcpStream) -> hyper::Result<Self> {
        let (sender, driver) =
            http1::Builder::new().max_buf_size(HttpProbe::MAX_HEAD).handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver, open: true })
    }

    /// The bare stream, between two exchanges: an idle connection costs no buffers. `None`: it has ended, or the other
    /// side has said more than was asked.
    fn into_idle(self) -> Option<TcpStream> {
        let parts = self.open.then(|| self.driver.into_parts())?;
        parts.read_buf.is_empty().then(|| parts.io.into_inner())
    }

    /// Sends a request and waits for the head of its answer.
    async fn send(&mut self, request: Request<String>) -> hyper::Result<Response<Incoming>> {
        let Self { sender, driver, open } = self;
        drive(driver, open, async {
            sender.ready().await?;
            sender.send_request(request).await
        })
        .await
    }

    /// Reads a body to its end, but no more than `limit` bytes. Whether that was all.
    async fn read(&mut self, body: &mut Incoming, limit: usize, mut take: impl FnMut(&[u8])) -> hyper::Result<bool> {
        let mut left = limit;
        let read = async {
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                let Ok(data) = frame?.into_data() else { continue };
                take(&data[..data.len().min(left)]);
                if data.len() > left {
                    return Ok(false);
                }
                left -= data.len();
            }
            Ok(true)
        };
        drive(&mut self.driver, &mut self.open, read).await
    }
}

/// Moves a connection forward until `work` is done.
async fn drive<T>(
    driver: &mut http1::Connection<TokioIo<TcpStream>, String>,
    open: &mut bool,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        if *open {
            *open = Pin::new(&mut *driver).poll(cx).is_pending();
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// What went wrong with an exchange, for people.
fn tell(error: &hyper::Error) -> String {
    if let Some(io) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        return describe(io);
    }
    if error.is_incomplete_message() {
        return "closed without a whole answer".to_owned();
    }
    if error.is_parse() {
        return format!("the answer is not HTTP: {error}");
    }
    error.to_string()
}
