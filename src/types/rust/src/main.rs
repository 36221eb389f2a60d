//! The worker '{{name}}': a page and a health path.
//!
//! The listening socket is file descriptor 3 (sd_listen_fds(3)), and SIGTERM means: finish and exit.

use std::env;
use std::error::Error;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use listenfd::ListenFd;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{name}}</title>
</head>
<body>
<h1>Hello from {{name}}</h1>
<p>Edit <code>{{directory}}/src/main.rs</code>, save it, and this page follows.</p>
</body>
</html>
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // First of all, so that none comes too early.
    let mut terminated = signal(SignalKind::terminate())?;
    let listener = ListenFd::from_env()
        .take_unix_listener(0)?
        .ok_or("no socket was passed; run this worker with `tqserver dev`")?;
    listener.set_nonblocking(true)?;
    // The whole path of a request arrives here, so the worker has to know where it is.
    let route = env::var("WORKER_ROUTE").unwrap_or_else(|_| "{{route}}".to_owned());
    eprintln!("{{name}} serves {route}");
    axum::serve(UnixListener::from_std(listener)?, app(&route))
        .with_graceful_shutdown(async move {
            terminated.recv().await;
        })
        .await?;
    Ok(())
}

fn app(route: &str) -> Router {
    let base = route.trim_end_matches('/');
    let router = Router::new()
        .route(&format!("{base}/"), get(page))
        .route(&format!("{base}/health"), get(health));
    if base.is_empty() {
        router
    } else {
        router.route(base, get(page))
    }
}

async fn page() -> Html<&'static str> {
    Html(PAGE)
}

async fn health() -> &'static str {
    "ok\n"
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(route: &str, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app(route).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_page_is_at_the_route_and_says_the_name() {
        for (route, path) in [("/a/b", "/a/b"), ("/a/b", "/a/b/"), ("/", "/")] {
            let (status, body) = ask(route, path).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert!(body.contains("{{name}}"), "{body}");
        }
    }

    #[tokio::test]
    async fn the_health_path_is_below_the_route() {
        assert_eq!(ask("/a", "/a/health").await.0, StatusCode::OK);
        assert_eq!(ask("/", "/health").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_is_not_there_is_404() {
        assert_eq!(ask("/a", "/a/none").await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask("/a", "/").await.0, StatusCode::NOT_FOUND);
    }
}
