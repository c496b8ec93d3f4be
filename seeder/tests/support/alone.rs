//! How a test starts a seeder that is alone.

use std::net::Ipv4Addr;
use std::path::Path;

use eagle_core::config::seeder::SeederConfig;
use eagle_core::size::ByteSize;

/// On free ports of this machine, with its cache in `directory` however full the disk is.
pub(crate) fn config(directory: &Path) -> SeederConfig {
    let mut config = SeederConfig::default();
    config.api.listen = (Ipv4Addr::LOCALHOST, 0).into();
    config.peer.listen = (Ipv4Addr::LOCALHOST, 0).into();
    (config.cache.directory, config.cache.min_free) = (directory.to_owned(), ByteSize(0));
    config
}
