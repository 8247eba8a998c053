//! Health and metrics as a probe gets them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The status and the whole answer for a path.
pub async fn get(http: &str, path: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(http).await.expect("HTTP is served");
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("it is a text");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an HTTP answer");
    (status, answer)
}

/// The value of a metric without labels, or with those that `series` names.
pub async fn metric(http: &str, series: &str) -> Option<u64> {
    let (_, text) = get(http, "/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}
