//! A small API server in memory: objects by path, server-side apply without merging, generations, label selectors,
//! watches that miss nothing. It records what it is asked, as RBAC would see it, and can be told to refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What RBAC decides about: group, resource with subresource, verb, namespace.
pub(crate) type Asked = (String, String, String, Option<String>);

/// The server.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<(Place, String), Value>,
    asked: BTreeSet<Asked>,
    // Everything that ever happened, so that a watch can begin where its list ended: the version is the index.
    events: Vec<(Place, &'static str, Value)>,
    unknown: BTreeSet<String>,
    applied: Vec<String>,
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

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::default() }
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
        let mut object = object;
        // Status is a subresource: who writes the object does not touch it.
        if let Some(known) =
            self.get(path).filter(|known| !known["status"].is_null() && object["status"].is_null())
        {
            object["status"] = known["status"].clone();
        }
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

    /// All objects of `resource`.
    pub(crate) fn of(&self, resource: &str) -> Vec<Value> {
        let state = self.state.lock();
        let objects = state.objects.iter().filter(|((place, _), _)| place.resource == resource);
        objects.map(|(_, object)| object.clone()).collect()
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
        if on {
            refuse.insert(key)
        } else {
            refuse.remove(&key)
        };
    }

    /// Every answer about `resource` is 404, as before its definition is installed.
    pub(crate) fn unknown(&self, resource: &str) {
        self.state.lock().unknown.insert(resource.to_owned());
    }

    /// What was applied, as `resource/name`, in order.
    pub(crate) fn applied(&self) -> Vec<String> {
        self.state.lock().applied.clone()
    }

    /// How often `resource` was written.
    pub(crate) fn writes(&self, resource: &str) -> usize {
        self.state.lock().writes.get(resource).copied().unwrap_or_default()
    }

    /// How often anything was written.
    pub(crate) fn all_writes(&self) -> usize {
        self.state.lock().writes.values().sum()
    }

    /// What a token review answers.
    pub(crate) fn review(&self, status: Value) {
        self.state.lock().token_review = Some(status);
    }

    /// Waits until `holds`, looking whenever something changes and, for what no object shows, now and then.
    pub(crate) async fn until<T>(&self, what: &str, holds: impl Fn(&Self) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = holds(self) {
                    return found;
                }
                let _ = tokio::time::timeout(Duration::from_millis(50), changed.changed()).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_mins(15), wait).await;
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
            if state.refuse.contains(&(verb.to_owned(), resource.clone())) {
                return status(500, "InternalError");
            }
            if state.unknown.contains(&resource) {
                return status(404, "NotFound");
            }
        }
        let merge =
            parts.headers.get("content-type").is_some_and(|kind| kind == "application/merge-patch+json");
        self.serve(if merge { "merge" } else { verb }, &path, &query, &body)
    }

    fn serve(&self, verb: &str, path: &Path, query: &BTreeMap<String, String>, body: &[u8]) -> Answer {
        let place = &path.place;
        let name = path.name.clone().unwrap_or_default();
        match verb {
            "list" => whole(&self.list(place, query.get("labelSelector"))),
            "watch" => self.watch(place.clone(), query),
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
            "merge" => self.merge(path, &name, &serde_json::from_slice(body).unwrap()),
            "patch" => self.patch(path, &name, &serde_json::from_slice(body).unwrap()),
            _ => match self.remove(place, &name) {
                Some(object) => whole(&object),
                None => status(404, "NotFound"),
            },
        }
    }

    /// A merge patch, with the version that was read if it names one.
    fn merge(&self, path: &Path, name: &str, patch: &Value) -> Answer {
        let known = self.state.lock().objects.get(&(path.place.clone(), name.to_owned())).cloned();
        let Some(mut object) = known else { return status(404, "NotFound") };
        let version = &patch["metadata"]["resourceVersion"];
        if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
            return status(409, "Conflict");
        }
        merge(&mut object, patch);
        whole(&self.store(&path.place, name, object))
    }

    fn patch(&self, path: &Path, name: &str, applied: &Value) -> Answer {
        let known = self.state.lock().objects.get(&(path.place.clone(), name.to_owned())).cloned();
        if path.subresource.as_deref() == Some("status") {
            let Some(mut object) = known else { return status(404, "NotFound") };
            object["status"] = applied["status"].clone();
            return whole(&self.store(&path.place, name, object));
        }
        self.state.lock().applied.push(format!("{}/{name}", path.place.resource));
        let mut object = applied.clone();
        if let Some(known) = known {
            if !known["status"].is_null() {
                object["status"] = known["status"].clone();
            }
            for kept in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
                object["metadata"][kept] = known["metadata"][kept].clone();
            }
            // As the API server does: what changes nothing makes no event.
            if object == known {
                return whole(&known);
            }
        } else {
            // Who applies what is not there must be allowed to create it.
            let place = path.place.clone();
            let asked = (place.group, place.resource, "create".to_owned(), place.namespace);
            self.state.lock().asked.insert(asked);
        }
        whole(&self.store(&path.place, name, object))
    }

    fn store(&self, place: &Place, name: &str, mut object: Value) -> Value {
        let mut state = self.state.lock();
        let known = state.objects.get(&(place.clone(), name.to_owned())).cloned();
        let version = state.events.len() + 1;
        let generation = known.as_ref().map_or(1, |known| {
            let before = known["metadata"]["generation"].as_i64().unwrap();
            before + i64::from(known["spec"] != object["spec"])
        });
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = version.to_string().into();
        metadata["generation"] = generation.into();
        let of_known = |key: &str| known.as_ref().map(|known| known["metadata"][key].clone());
        for (key, fresh) in [
            ("uid", format!("uid-{}-{name}-{version}", place.resource)),
            ("creationTimestamp", "2026-01-01T00:00:00Z".to_owned()),
            ("name", name.to_owned()),
        ] {
            if metadata[key].is_null() {
                metadata[key] = of_known(key).unwrap_or_else(|| fresh.into());
            }
        }
        if let Some(namespace) = &place.namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        state.objects.insert((place.clone(), name.to_owned()), object.clone());
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        state.events.push((place.clone(), kind, object.clone()));
        drop(state);
        self.changed.send_replace(());
        object
    }

    fn remove(&self, place: &Place, name: &str) -> Option<Value> {
        let mut state = self.state.lock();
        let mut object = state.objects.remove(&(place.clone(), name.to_owned()))?;
        object["metadata"]["resourceVersion"] = (state.events.len() + 1).to_string().into();
        state.events.push((place.clone(), "DELETED", object.clone()));
        drop(state);
        self.changed.send_replace(());
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
            "metadata": { "resourceVersion": state.events.len().to_string() }, "items": items,
        })
    }

    /// What happened after the version that the watch begins at, and whatever happens then.
    fn watch(&self, place: Place, query: &BTreeMap<String, String>) -> Answer {
        let seen: usize = query["resourceVersion"].parse().unwrap();
        let selector = query.get("labelSelector").cloned();
        let state = Arc::clone(&self.state);
        let changed = self.changed.subscribe();
        let stream = futures::stream::unfold((seen, changed), move |(mut seen, mut changed)| {
            let (state, place, selector) = (Arc::clone(&state), place.clone(), selector.clone());
            async move {
                loop {
                    let next = state.lock().events.get(seen).cloned();
                    let Some((at, kind, object)) = next else {
                        changed.changed().await.ok()?;
                        continue;
                    };
                    seen += 1;
                    if within(&place, &at)
                        && selector.as_ref().is_none_or(|selector| matches(&object, selector))
                    {
                        let line = format!("{}\n", json!({ "type": kind, "object": object }));
                        return Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), (seen, changed)));
                    }
                }
            }
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)))
    }
}

/// RFC 7396.
fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    for (field, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(field);
        } else {
            merge(&mut object[field], value);
        }
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
    Response::new(http_body_util::Full::new(Bytes::from(value.to_string())).boxed_unsync())
}

fn status(code: u16, reason: &str) -> Answer {
    let mut answer = whole(&json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "message": reason, "code": code,
    }));
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
    answer
}
