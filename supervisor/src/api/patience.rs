//! Requests that must arrive in time, and answers that count for as long as nobody has taken them.
//!
//! Whoever has called by HTTP/1 is let go with the answer: unlike others it is never asked whether it is there still.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, TryFutureExt};
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    caller::Caller,
    limits::Call,
    status::{Refusal, keep_brief},
};

/// A request has this long to arrive, once its headers have. The largest is 4 MiB, and the way is a Unix socket.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// Counts calls, and bounds how long their requests take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience;

/// A service with that around it.
#[derive(Debug, Clone)]
pub(super) struct Patient<S>(S);

impl<S> Layer<S> for Patience {
    type Service = Patient<S>;

    fn layer(&self, inner: S) -> Patient<S> {
        Patient(inner)
    }
}

impl<S> Service<Request<Body>> for Patient<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let said = size(&request);
        let call = request.extensions().get().map(|caller: &Caller| caller.ticket.call(said));
        let is_asked = request.version() >= Version::HTTP_2;
        let answer = self.0.call(request.map(|body| Body::new(Arriving::new(body))));
        let leave = move |answer: Response<Body>| {
            let mut answer = answer.map(|body| Body::new(Leaving::new(body, call)));
            keep_brief(answer.headers_mut());
            if !is_asked {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        };
        answer.map_ok(leave).boxed()
    }
}

/// What the headers of a request come to. As they were sent they may be a few bytes: such as were sent before are called by
/// a number (RFC 7541, section 2.3).
fn size<T>(request: &Request<T>) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    request.uri().path().len() + headers.sum::<usize>()
}

/// A request on its way in.
struct Arriving {
    body: Body,
    deadline: Instant,
    /// Made when the first wait begins: most requests are there at once.
    patience: Option<Pin<Box<Sleep>>>,
}

/// An answer on its way out.
pub(super) struct Leaving<B> {
    body: B,
    /// `None` for a caller that nobody counts; there is none.
    call: Option<Call>,
    /// Bytes that the connection has been given since it last asked.
    given: usize,
}

impl Arriving {
    fn new(body: Body) -> Self {
        Self { body, deadline: Instant::now() + ARRIVES_WITHIN, patience: None }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let deadline = self.deadline;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(patience.as_mut().poll(context));
        Poll::Ready(Some(Err(Refusal::RequestTooSlow(ARRIVES_WITHIN).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Leaving<B> {
    pub(super) fn new(body: B, call: Option<Call>) -> Self {
        Self { body, call, given: 0 }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Leaving<B> {
    type Data = Bytes;
    type Error = B::Error;

    /// The connection asks for more only when it has room, so what it had before is gone.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            keep_brief(trailers);
        }
        let given = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
            Poll::Ready(Some(Err(_)) | None) | Poll::Pending => 0,
        };
        self.given = given;
        if let Some(call) = &self.call {
            call.hold(given);
        }
        polled
    }

    /// Not as long as the connection may still have something of it: it would let go of this one.
    fn is_end_stream(&self) -> bool {
        self.given == 0 && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_size_of_what_it_says() {
        let request = Request::get("http://localhost/seven").header("name", "value").body(()).unwrap();
        assert_eq!(size(&request), "/sevennamevalue".len());
    }
}
