//! Owns `docs/reference/config.md`: the default configuration of every role, with its documentation.
//! `UPDATE_EXPECT=1 cargo test -p eagle-core --test generated` writes it.

use eagle_core::config::agent::AgentConfig;
use eagle_core::config::print_default;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use expect_test::expect_file;

#[test]
fn the_reference_is_up_to_date() {
    let mut page = String::from(
        "# Configuration files\n\n\
         Generated from the types in `core/src/config`. `eagle agent --print-default-config` prints the same; only what \
         differs from it needs to be in a file. A key that does not exist, or a value that cannot be, is one line on \
         standard error and exit code 78. On Kubernetes the operator writes these files from EagleClusters.\n",
    );
    for (role, text) in [
        ("agent", print_default::<AgentConfig>()),
        ("seeder", print_default::<SeederConfig>()),
        ("tracker", print_default::<TrackerConfig>()),
    ] {
        page += &["\n## eagle ", role, "\n\n```toml\n", text.trim_end(), "\n```\n"].concat();
    }
    expect_file!["../../docs/reference/config.md"].assert_eq(&page);
}
