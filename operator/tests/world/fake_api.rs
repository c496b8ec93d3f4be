//! A small API server in memory: objects by path, server-side apply without merging, label selectors, watches. It
//! records what it is asked, as RBAC would see it, and can be told to refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// What RBAC decides about: group, resource with subresource, verb; whether in a namespace.
pub(crate) type Asked = (String, String, String, Option<String>);

/// The server.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<(Place, &'static str, Value)>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<(Place, String), Value>,
    asked: BTreeSet<Asked>,
    version: u64,
    refuse: BTreeSet<(String, String)>,
    writes: BTreeMap<String, usize>,
    token_review: Option<Value>,
}

/// A list of objects: group, version, namespace, resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    group: String,
    resource: String,
    namespace: Option<String>,
}

struct Path {
    place: Place,
    name: Option<String>,
    subresource: Option<String>,
}

fn parse(path: &str) -> Path {
    let mut parts = path.trim_matches('/').split('/').map(str::to_owned);
    let group = if parts.next().unwrap() == "api" { String::new() } else { parts.next().unwrap() };
    let _version = parts.next().unwrap();
    let mut rest: Vec<String> = parts.collect();
    let namespace = (rest[0] == "namespaces" && rest.len() > 2).then(|| rest.drain(..2).nth(1).unwrap());
    let mut rest = rest.into_iter();
    let place = Place { group, resource: rest.next().unwrap(), namespace };
    Path { place, name: rest.next(), subresource: rest.next() }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), events: broadcast::channel(10_000).0 }
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "eagle-system")
    }

    /// Makes or replaces an object, as somebody else would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        let path = parse(path);
        self.store(&path.place, &path.name.unwrap(), object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let path = parse(path);
        self.state.lock().objects.get(&(path.place, path.name?)).cloned()
    }

    pub(crate) fn delete(&self, path: &str) {
        let path = parse(path);
        self.remove(&path.place, &path.name.unwrap());
    }

    /// Everything there is, as `resource/name`.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.state.lock().objects.keys().map(|(place, name)| format!("{}/{name}", place.resource)).collect()
    }

    pub(crate) fn asked(&self) -> BTreeSet<Asked> {
        self.state.lock().asked.clone()
    }

    /// Refuses every `verb` on `resource` with 500, until told otherwise.
    pub(crate) fn refuse(&self, verb: &str, resource: &str, on: bool) {
        let key = (verb.to_owned(), resource.to_owned());
        let refuse = &mut self.state.lock().refuse;
        if on { refuse.insert(key) } else { refuse.remove(&key) };
    }

    /// How often `resource` was written.
    pub(crate) fn writes(&self, resource: &str) -> usize {
        self.state.lock().writes.get(resource).copied().unwrap_or_default()
    }

    /// What a token review answers.
    pub(crate) fn review(&self, status: Value) {
        self.state.lock().token_review = Some(status);
    }

    /// Waits until `holds`, looking whenever something changes.
    pub(crate) async fn until<T>(&self, what: &str, holds: impl Fn(&Self) -> Option<T>) -> T {
        let mut events = self.events.subscribe();
        let wait = async {
            loop {
                if let Some(found) = holds(self) {
                    return found;
                }
                // Also without an event, for what no object shows.
                let _ = tokio::time::timeout(std::time::Duration::from_millis(50), events.recv()).await;
            }
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(30), wait).await;
        found.unwrap_or_else(|_| panic!("not in time: {what}; there are {:?}", self.names()))
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let path = parse(parts.uri.path());
        let query: BTreeMap<String, String> = form(parts.uri.query().unwrap_or_default());
        let watch = query.get("watch").is_some_and(|value| value == "true");
        let verb = match (parts.method.clone(), &path.name) {
            (Method::GET, None) if watch => "watch",
            (Method::GET, None) => "list",
            (Method::GET, Some(_)) => "get",
            (Method::POST, _) => "create",
            (Method::PUT, _) => "update",
            (Method::PATCH, _) => "patch",
            (Method::DELETE, _) => "delete",
            other => panic!("{other:?}"),
        };
        let resource = match &path.subresource {
            Some(subresource) => format!("{}/{subresource}", path.place.resource),
            None => path.place.resource.clone(),
        };
        {
            let mut state = self.state.lock();
            let asked =
                (path.place.group.clone(), resource.clone(), verb.to_owned(), path.place.namespace.clone());
            state.asked.insert(asked);
            if !matches!(verb, "get" | "list" | "watch") {
                *state.writes.entry(resource.clone()).or_default() += 1;
            }
            if state.refuse.contains(&(verb.to_owned(), resource)) {
                return status(500, "InternalError");
            }
        }
        self.serve(verb, &path, &query, &body)
    }

    fn serve(&self, verb: &str, path: &Path, query: &BTreeMap<String, String>, body: &[u8]) -> Answer {
        let place = &path.place;
        let name = path.name.clone().unwrap_or_default();
        match verb {
            "list" => whole(&self.list(place, query.get("labelSelector"))),
            "watch" => self.watch(place.clone()),
            "get" => match self.state.lock().objects.get(&(place.clone(), name)) {
                Some(object) => whole(object),
                None => status(404, "NotFound"),
            },
            "create" if place.resource == "tokenreviews" => {
                whole(&json!({ "spec": {}, "status": self.state.lock().token_review.clone() }))
            }
            "create" => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                if self.state.lock().objects.contains_key(&(place.clone(), name.clone())) {
                    return status(409, "AlreadyExists");
                }
                whole(&self.store(place, &name, object))
            }
            "update" => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let version = object["metadata"]["resourceVersion"].clone();
                let known = self.state.lock().objects.get(&(place.clone(), name.clone())).cloned();
                if known.is_some_and(|known| known["metadata"]["resourceVersion"] != version) {
                    return status(409, "Conflict");
                }
                whole(&self.store(place, &name, object))
            }
            "patch" => self.patch(path, &name, &serde_json::from_slice(body).unwrap()),
            _ => match self.remove(place, &name) {
                Some(object) => whole(&object),
                None => status(404, "NotFound"),
            },
        }
    }

    fn patch(&self, path: &Path, name: &str, applied: &Value) -> Answer {
        let known = self.state.lock().objects.get(&(path.place.clone(), name.to_owned())).cloned();
        let object = if path.subresource.as_deref() == Some("status") {
            let Some(mut object) = known else { return status(404, "NotFound") };
            object["status"] = applied["status"].clone();
            object
        } else {
            let mut object = applied.clone();
            if let Some(known) = known {
                for kept in ["status"] {
                    if !known[kept].is_null() {
                        object[kept] = known[kept].clone();
                    }
                }
                for kept in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
                    object["metadata"][kept] = known["metadata"][kept].clone();
                }
                if object == known {
                    return whole(&known);
                }
            }
            object
        };
        whole(&self.store(&path.place, name, object))
    }

    fn store(&self, place: &Place, name: &str, mut object: Value) -> Value {
        let mut state = self.state.lock();
        state.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = state.version.to_string().into();
        if metadata["uid"].is_null() {
            metadata["uid"] = format!("uid-{}-{name}", place.resource).into();
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        if metadata["name"].is_null() {
            metadata["name"] = name.into();
        }
        if let Some(namespace) = &place.namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        let known = state.objects.insert((place.clone(), name.to_owned()), object.clone());
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        drop(state);
        let _ = self.events.send((place.clone(), kind, object.clone()));
        object
    }

    fn remove(&self, place: &Place, name: &str) -> Option<Value> {
        let object = self.state.lock().objects.remove(&(place.clone(), name.to_owned()))?;
        let _ = self.events.send((place.clone(), "DELETED", object.clone()));
        Some(object)
    }

    fn list(&self, place: &Place, selector: Option<&String>) -> Value {
        let state = self.state.lock();
        let items = state.objects.iter().filter(|((at, _), object)| {
            within(place, at) && selector.is_none_or(|selector| matches(object, selector))
        });
        let items: Vec<Value> = items.map(|(_, object)| object.clone()).collect();
        json!({
            "apiVersion": "v1", "kind": "List",
            "metadata": { "resourceVersion": state.version.to_string() }, "items": items,
        })
    }

    /// Events from now on. Between a list and its watch nothing is lost, because `until` looks again.
    fn watch(&self, place: Place) -> Answer {
        let events = self.events.subscribe();
        let stream = futures::stream::unfold((events, place), |(mut events, place)| async move {
            loop {
                let (at, kind, object) = events.recv().await.ok()?;
                if within(&place, &at) {
                    let line = format!("{}\n", json!({ "type": kind, "object": object }));
                    let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(line)));
                    return Some((frame, (events, place)));
                }
            }
        });
        Response::new(BodyExt::boxed(StreamBody::new(Box::pin(SyncStream(stream)))))
    }
}

fn within(place: &Place, at: &Place) -> bool {
    place.group == at.group
        && place.resource == at.resource
        && (place.namespace.is_none() || place.namespace == at.namespace)
}

fn matches(object: &Value, selector: &str) -> bool {
    selector.split(',').all(|term| {
        let (key, value) = term.split_once('=').unwrap();
        object["metadata"]["labels"][key] == value
    })
}

fn form(query: &str) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn whole(value: &Value) -> Answer {
    Response::new(http_body_util::Full::new(Bytes::from(value.to_string())).boxed())
}

fn status(code: u16, reason: &str) -> Answer {
    let mut answer = whole(&json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "message": reason, "code": code,
    }));
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
    answer
}

/// A stream that is only ever polled by its one owner.
struct SyncStream<S>(S);

impl<S: futures::Stream + Send> futures::Stream for SyncStream<S> {
    type Item = S::Item;
    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        unimplemented!()
    }
}
