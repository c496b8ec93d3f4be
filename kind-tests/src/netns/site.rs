//! The site without Eagle: a switch, a registry, and nodes with a container runtime each.

use std::path::PathBuf;

use eagle_core::size::Rate;

use super::containerd::Containerd;
use super::network::{Namespace, Network};
use super::place::Place;
use super::registry::Registry;
use super::software::Software;
use crate::fleet::{Image, REGISTRY, make};
use ::eagle::demo::image::ImageSpec;

/// What a site is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many nodes.
    pub nodes: u8,
    /// Every link but the registry's, each way.
    pub link: Rate,
    /// The registry's link, each way.
    pub origin_link: Rate,
    /// Where everything is kept while it runs. Each node needs three times an image's size.
    pub directory: PathBuf,
    /// Whether everything stays, for a look at it; the next run removes it.
    pub keep: bool,
}

/// A running site. Everything is removed when it is dropped.
#[derive(Debug)]
pub struct Site {
    /// The nodes' runtimes.
    pub nodes: Vec<Containerd>,
    /// The origin.
    pub registry: Registry,
    /// The switch.
    pub network: Network,
    /// What it all leaves on the machine; dropped last.
    pub place: Place,
    link: Rate,
}

impl Site {
    /// Builds one, whose runtimes are the machine's own containerd. They pull from the registry itself.
    pub async fn start(settings: &Settings) -> anyhow::Result<Self> {
        Self::start_with(&Software::of_machine()?, settings).await
    }

    /// Builds one whose runtimes are `software`.
    pub async fn start_with(software: &Software, settings: &Settings) -> anyhow::Result<Self> {
        let mut place = Place::new(&settings.directory)?;
        place.set_keep(settings.keep);
        let network = Network::new(&place)?;
        let namespace = network.attach(&place, "registry", [0, 2], settings.origin_link)?;
        let registry = Registry::start(&place, namespace).await?;
        let hosts = [registry.endpoint()];
        let mut nodes = Vec::new();
        for number in 1..=settings.nodes {
            let namespace = network.attach(&place, &format!("n{number}"), [1, number], settings.link)?;
            nodes.push(Containerd::start(software, &place, namespace, &hosts).await?);
        }
        Ok(Self { nodes, registry, network, place, link: settings.link })
    }

    /// Changes the rate of the registry's link, each way.
    pub fn limit_origin(&self, rate: Rate) -> anyhow::Result<()> {
        self.network.limit(self.registry.namespace(), rate)
    }

    /// A further machine, called `part`, on a link like a node's.
    pub fn attach(&self, part: &str, address: [u8; 2]) -> anyhow::Result<Namespace> {
        self.network.attach(&self.place, part, address, self.link)
    }

    /// Makes an image and pushes it as `name`:v1.
    pub async fn publish(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image> {
        let layout = tempfile::tempdir_in(self.place.directory())?;
        let made = make(spec, layout.path()).await?;
        self.registry.push(layout.path(), &made, name, "v1").await?;
        Ok(Image { reference: format!("{REGISTRY}/{name}:v1"), made })
    }
}
