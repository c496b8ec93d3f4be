//! Ten thousand nodes: what it costs the API server.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::fake_api::FakeApi;
use crate::world::{DIGEST, Operator, pass, put, put_node, until_condition};

const NODES: usize = 10_000;
const WEB: &str = "apis/eagle-p2p.io/v1alpha1/namespaces/shop/imageprefetches/web";

#[tokio::test(start_paused = true)]
async fn a_prefetch_of_ten_thousand_nodes_writes_once_in_two_seconds() {
    let api = FakeApi::new();
    let names: Vec<String> = (0..NODES).map(|number| format!("n{number:05}")).collect();
    for name in &names {
        put_node(&api, name);
    }
    let operator = Operator::start(&api);
    // Each takes a second or two, at its own time: reports come all the while.
    for (number, name) in names.iter().enumerate() {
        let agent = operator.connect(name, Vec::new());
        let late = Duration::from_millis(u64::try_from(number).unwrap());
        tokio::spawn(async move {
            pass(late).await;
            agent.work().await;
        });
    }
    let started = Instant::now();
    put(
        &api,
        &format!(
            "{{apiVersion: eagle-p2p.io/v1alpha1, kind: ImagePrefetch, metadata: {{name: web, namespace: shop}}, \
             spec: {{images: [{{image: 'nginx@{DIGEST}'}}]}}}}"
        ),
    );
    until_condition(&api, WEB, "Ready", "Complete").await;
    let seconds = started.elapsed().as_secs();
    let status = api.get(WEB).unwrap()["status"].clone();
    assert_eq!(status["nodes"]["ready"], json!(NODES));
    assert!(status.to_string().len() < 2000, "{status}");
    let writes = api.writes("imageprefetches/status");
    assert!(u64::try_from(writes).unwrap() <= seconds / 2 + 2, "{writes} writes in {seconds} s");
    assert!(api.writes("events") <= 4, "{} events", api.writes("events"));
    let all: usize = api.all_writes();
    assert!(all <= writes + 4, "nothing else is written: {all} writes");
}
