//! What the server answers to whom.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::map_response_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use serde_json::json;

use super::Server;
use super::body::{self, Lines, Refusal};
use crate::lines::Source;

type Shared = State<Arc<Server>>;

const JSON: &str = "application/json";
/// What JSON Lines are called: the first is what answers say.
const JSON_LINES: [&str; 4] =
    ["application/jsonl", "application/x-ndjson", "application/x-jsonlines", "application/jsonlines"];

/// Seconds after which a client that is refused since too much waits may come back.
const RETRY_AFTER: &str = "1";

pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/generate", post(generate))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "there are /generate, /health and /metrics"))
        .method_not_allowed_fallback(async || {
            let message = "/generate is for POST, /health and /metrics are for GET";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
        })
        .layer(map_response_with_state(Arc::clone(&server), count))
        .with_state(server)
}

async fn count(State(server): Shared, response: Response) -> Response {
    server.metrics.count_request(response.status().as_u16());
    response
}

async fn health(State(server): Shared) -> Response {
    (content_type(JSON), format!("{}\n", server.about)).into_response()
}

async fn metrics(State(server): Shared) -> Response {
    (content_type("text/plain; version=0.0.4"), server.metrics.text(server.queue.len())).into_response()
}

async fn generate(State(server): Shared, headers: HeaderMap, body: Body) -> Response {
    let asked = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let asked = asked.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match asked.as_deref() {
        None | Some(JSON) => generate_one(&server, body).await.into_response(),
        Some(name) if JSON_LINES.contains(&name) && server.queue.is_full() => busy().into_response(),
        Some(name) if JSON_LINES.contains(&name) => generate_lines(server, body),
        Some(name) => {
            let message = format!("the content type is {JSON} or {}, not {name}", JSON_LINES[0]);
            Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response()
        }
    }
}

fn busy() -> Refusal {
    let message = "as many sources wait as --queue allows: come back later";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// Answers a request for one source.
async fn generate_one(server: &Arc<Server>, body: Body) -> Result<Response, Refusal> {
    let bytes = body::read(body, server.max_request).await?;
    let source = read_source(server, bytes).await?;
    if server.queue.is_full() {
        return Err(busy());
    }
    let line = server.queue.answer(source).await;
    let failed = |message| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message);
    Ok((content_type(JSON), line.map_err(failed)?).into_response())
}

/// Answers a request for the sources of many lines, in their order. As many lines are on their way as two
/// batches for each worker take: while a client does not read answers, no more is read from it.
fn generate_lines(server: Arc<Server>, body: Body) -> Response {
    let lines = Lines::new(body, server.max_request);
    let lines = stream::unfold(lines, async |mut lines| lines.next().await.map(|line| (line, lines)));
    let on_their_way = server.lines_on_their_way;
    let answers = lines.map(move |(number, line)| {
        let server = Arc::clone(&server);
        async move {
            let answer = match line {
                Ok(line) => answer_line(&server, line).await,
                Err(refusal) => Err(refusal.message),
            };
            answer.unwrap_or_else(|message| error_line(&format!("line {number}: {message}")))
        }
    });
    let body = Body::from_stream(answers.buffered(on_their_way).map(Ok::<_, Infallible>));
    (content_type(JSON_LINES[0]), body).into_response()
}

async fn answer_line(server: &Arc<Server>, line: Vec<u8>) -> Result<Vec<u8>, String> {
    // In JSON Lines the first line of a text is the only one.
    let at_column = |refusal: Refusal| refusal.message.replace(" at line 1 column ", " at column ");
    let source = read_source(server, line).await.map_err(at_column)?;
    server.queue.answer(source).await
}

/// Tokenises aside: a long text keeps no other request waiting.
async fn read_source(server: &Arc<Server>, line: Vec<u8>) -> Result<Source, Refusal> {
    let reader = Arc::clone(server);
    let source = tokio::task::spawn_blocking(move || reader.source(&line)).await;
    let failed = |error: tokio::task::JoinError| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be read: {error}"))
    };
    source.map_err(failed)?.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("{error:#}")))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, content_type(JSON), error_line(&self.message)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let retry_after = header::HeaderValue::from_static(RETRY_AFTER);
            response.headers_mut().insert(header::RETRY_AFTER, retry_after);
        }
        response
    }
}

fn error_line(message: &str) -> Vec<u8> {
    format!("{}\n", json!({ "error": message })).into_bytes()
}

fn content_type(name: &'static str) -> [(header::HeaderName, &'static str); 1] {
    [(header::CONTENT_TYPE, name)]
}
