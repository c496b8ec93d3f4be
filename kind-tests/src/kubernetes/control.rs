//! The control plane: etcd, API server, controller manager, scheduler, and CoreDNS beside them.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::authority::{Authority, Identity};
use super::kubectl::Kubectl;
use super::tools::program;
use crate::netns::network::Namespace;
use crate::netns::place::Place;
use crate::netns::process::{Output, Process};
use crate::wait::until;

/// Where Services are.
pub const SERVICES: &str = "10.96.0.0/16";
/// The API server's Service.
const API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The cluster's name server.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The cluster's domain.
pub const DOMAIN: &str = "cluster.local";
/// Longest wait for the API server. It takes some 3 s on an idle machine with two processors.
const START: Duration = Duration::from_mins(2);

/// A running control plane.
#[derive(Debug)]
pub struct Control {
    namespace: Namespace,
    authority: Authority,
    kubectl: Kubectl,
    directory: PathBuf,
    processes: Vec<Process>,
}

impl Control {
    /// Starts one in `namespace`; returns when the API server is ready.
    pub async fn start(place: &Place, namespace: Namespace) -> anyhow::Result<Self> {
        let directory = place.directory().join(namespace.part());
        let authority = Authority::new(&directory)?;
        let admin = Identity { user: "admin", group: Some("system:masters") };
        let admin = authority.kubeconfig("admin", admin, &server(&namespace))?;
        let kubectl = Kubectl::new(Some(namespace.clone()), admin.as_ref(), &directory);
        namespace.run(&format!("ip route add {SERVICES} dev eth0"))?;
        let mut control = Self { namespace, authority, kubectl, directory, processes: Vec::new() };
        control.store(place)?;
        control.api(place)?;
        until(START, "the API server", Duration::from_millis(200), async || {
            control.check()?;
            Ok(control.kubectl.raw("/readyz").await.ok())
        })
        .await?;
        control.controllers(place)?;
        control.dns(place).await?;
        Ok(control)
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its administrator.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The authority of all certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The kubeconfig of `identity`.
    pub fn kubeconfig(&self, file: &str, identity: Identity<'_>) -> anyhow::Result<String> {
        self.authority.kubeconfig(file, identity, &server(&self.namespace))
    }

    /// Fails if one of its programs has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    fn run(&mut self, place: &Place, command: &[&str]) -> anyhow::Result<()> {
        let name = command[0].rsplit('/').next().unwrap_or_default();
        let log = self.directory.join(format!("{name}.log"));
        let output = Output { out: &log, errors: &log };
        self.processes.push(Process::start(place, &self.namespace, name, &output, command)?);
        Ok(())
    }

    fn store(&mut self, place: &Place) -> anyhow::Result<()> {
        let data = format!("--data-dir={}", self.directory.join("etcd").display());
        let command = [
            "etcd",
            &data,
            // Nothing here outlives the test.
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ];
        self.run(place, &command)
    }

    fn api(&mut self, place: &Place) -> anyhow::Result<()> {
        let own = self.namespace.address();
        let domains = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let nobody = Identity { user: "kube-apiserver", group: None };
        self.authority.certify("api", nobody, &[own, API], &domains)?;
        let to_kubelets = Identity { user: "kube-apiserver-kubelet-client", group: Some("system:masters") };
        self.authority.certify("kubelet-client", to_kubelets, &[], &[])?;
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.authority.file(name));
        let flags = [
            program("kube-apiserver")?,
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--bind-address={own}"),
            format!("--advertise-address={own}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            file("tls-cert-file", "api.crt"),
            file("tls-private-key-file", "api.key"),
            file("client-ca-file", "ca.crt"),
            file("kubelet-client-certificate", "kubelet-client.crt"),
            file("kubelet-client-key", "kubelet-client.key"),
            file("service-account-key-file", "sa.pub"),
            file("service-account-signing-key-file", "sa.key"),
            format!("--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}"),
            // Nodes have no names that resolve.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
        ];
        self.run(place, &flags.each_ref().map(String::as_str))
    }

    fn controllers(&mut self, place: &Place) -> anyhow::Result<()> {
        let manager = Identity { user: "system:kube-controller-manager", group: None };
        let manager = self.kubeconfig("controller-manager", manager)?;
        let scheduler = Identity { user: "system:kube-scheduler", group: None };
        let scheduler = self.kubeconfig("scheduler", scheduler)?;
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.authority.file(name));
        let flags = [
            program("kube-controller-manager")?,
            format!("--kubeconfig={manager}"),
            file("service-account-private-key-file", "sa.key"),
            file("root-ca-file", "ca.crt"),
            file("cluster-signing-cert-file", "ca.crt"),
            file("cluster-signing-key-file", "ca.key"),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
        ];
        let scheduler = [
            program("kube-scheduler")?,
            format!("--kubeconfig={scheduler}"),
            "--leader-elect=false".to_owned(),
        ];
        self.run(place, &flags.each_ref().map(String::as_str))?;
        self.run(place, &scheduler.each_ref().map(String::as_str))
    }

    /// CoreDNS is a process here, so its Service has an endpoint that is written by hand.
    async fn dns(&mut self, place: &Place) -> anyhow::Result<()> {
        let user = "coredns";
        let kubeconfig = self.kubeconfig(user, Identity { user, group: None })?;
        let own = self.namespace.address();
        let corefile = self.directory.join("Corefile");
        let text = format!(
            ".:53 {{\n  ready {own}:8181\n  errors\n  cache 5\n  kubernetes {DOMAIN} in-addr.arpa {{\n    \
             kubeconfig {kubeconfig} test\n    ttl 5\n  }}\n}}\n"
        );
        std::fs::write(&corefile, text)?;
        let port = |name: &str, protocol: &str| json!({ "name": name, "port": 53, "protocol": protocol });
        let ports = [port("dns", "UDP"), port("dns-tcp", "TCP")];
        let watch = json!(["list", "watch"]);
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kube-dns", "namespace": "kube-system" },
                "spec": { "clusterIP": DNS, "ports": ports },
            },
            {
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {
                    "name": "kube-dns", "namespace": "kube-system",
                    "labels": { "kubernetes.io/service-name": "kube-dns" },
                },
                "endpoints": [{ "addresses": [own] }], "ports": ports,
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": user },
                "rules": [
                    { "apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": watch },
                    { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": watch },
                ],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": user },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user },
                "subjects": [{ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" }],
            },
        ]});
        self.kubectl.apply(&objects).await?;
        self.run(place, &[&program("coredns")?, "-conf", &corefile.display().to_string()])
    }
}

fn server(namespace: &Namespace) -> String {
    format!("https://{}:6443", namespace.address())
}
