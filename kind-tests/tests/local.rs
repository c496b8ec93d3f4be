//! Every scenario, on a fleet of its own in this process.

use eagle_kind_tests::fleet::local::Local;
use eagle_kind_tests::{every_scenario, scenarios};

macro_rules! each {
    ($($noun:ident::$scenario:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $scenario() -> anyhow::Result<()> {
            scenarios::$noun::$scenario(&Local::start().await?).await
        }
    )*};
}

every_scenario!(each);
