//! `cargo xtask soak …`; see [`eagle_kind_tests::soak`].

fn main() -> anyhow::Result<()> {
    eagle_kind_tests::soak::run()
}
