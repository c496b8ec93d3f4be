//! Configuration: one TOML file a role, made of sections that the roles share.
//!
//! The doc comment of a field *is* its documentation: [`print_default`] puts it above the field's default value. A key
//! that does not exist is an error that names it, so a typing mistake never runs with a default in silence. Reading
//! the file is the executable's business; this module only knows its text.

use documented::DocumentedFields;
use serde::{Serialize, de::DeserializeOwned};

pub mod agent;
pub mod period;
pub mod section;
pub mod seeder;
pub mod store;
pub mod tracker;

/// A configuration that cannot be used, said in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{place}: {problem}")]
    Text {
        /// File and line.
        place: String,
        /// What is wrong, with the keys or values that would be right.
        problem: String,
    },
    /// The values do not fit together.
    #[error("{file}: {key}: {problem}")]
    Value {
        /// The file.
        file: String,
        /// The key in question, dotted.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// A value that is wrong, found by [`Config::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The key in question, dotted.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Wrong {
    /// `key` is wrong because of `problem`.
    pub fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self { key, problem: problem.into() }
    }
}

/// The documentation of a field, by its name.
type Docs = fn(&str) -> Option<&'static str>;

/// The configuration of one role.
pub trait Config: Serialize + DeserializeOwned + Default + DocumentedFields {
    /// The sections in it and the documentation of their fields.
    const SECTIONS: &'static [(&'static str, Docs)];

    /// Checks what a type cannot: values that must fit together.
    fn check(&self) -> Result<(), Wrong>;

    /// A copy fit for printing: every secret replaced.
    #[must_use]
    fn redacted(&self) -> Self;
}

/// Reads the text of `file` (its name only serves the error).
pub fn parse<C: Config>(file: &str, text: &str) -> Result<C, ConfigError> {
    let config: C = toml::from_str(text).map_err(|error| {
        let line =
            error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let problem = error.message().lines().collect::<Vec<_>>().join(" ");
        ConfigError::Text { place: format!("{file}:{line}"), problem }
    })?;
    config.check().map_err(|Wrong { key, problem }| ConfigError::Value {
        file: file.to_owned(),
        key,
        problem,
    })?;
    Ok(config)
}

/// The default configuration with the documentation of every key.
pub fn print_default<C: Config>() -> String {
    print(&C::default(), true)
}

/// `config` as TOML without comments, secrets replaced: what `/config` shows.
pub fn print_effective<C: Config>(config: &C) -> String {
    print(&config.redacted(), false)
}

fn print<C: Config>(config: &C, with_docs: bool) -> String {
    // Every type here serialises to TOML; if one did not, an empty text would fail the round-trip test at once.
    let mut document = toml_edit::ser::to_document(config).unwrap_or_default();
    let names: Vec<String> = document.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let Some(item) = document.get_mut(&name) else { continue };
        if let Some(inline) = item.as_inline_table() {
            *item = toml_edit::Item::Table(inline.clone().into_table());
        }
        let section = C::SECTIONS.iter().find(|(section, _)| *section == name);
        if let (Some(table), Some((_, docs))) = (item.as_table_mut(), section) {
            if with_docs {
                table.decor_mut().set_prefix(format!("\n{}", comment(C::get_field_docs(&name).ok())));
                document_keys(table, *docs);
            } else {
                table.decor_mut().set_prefix("\n");
            }
        }
    }
    if with_docs {
        document_keys(document.as_table_mut(), |name| C::get_field_docs(name).ok());
    }
    document.to_string().trim_start().to_owned()
}

fn document_keys(table: &mut toml_edit::Table, docs: impl Fn(&str) -> Option<&'static str>) {
    for (mut key, item) in table.iter_mut() {
        if item.is_value() {
            let text = comment(docs(key.get()));
            key.leaf_decor_mut().set_prefix(text);
        }
    }
}

fn comment(docs: Option<&str>) -> String {
    docs.unwrap_or_default().lines().fold(String::new(), |text, line| {
        let line = line.trim();
        text + if line.is_empty() { "#" } else { "# " } + line + "\n"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<C: Config + PartialEq + std::fmt::Debug>() {
        let text = print_default::<C>();
        assert!(text.contains("\n# "), "the documentation is printed:\n{text}");
        assert_eq!(parse::<C>("printed.toml", &text), Ok(C::default()), "{text}");
        let effective = print_effective(&C::default());
        assert_eq!(parse::<C>("effective.toml", &effective), Ok(C::default().redacted()), "{effective}");
        for (section, _) in C::SECTIONS {
            assert!(text.contains(&format!("[{section}]")), "section {section} in\n{text}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read() {
        round_trip::<agent::AgentConfig>();
        round_trip::<seeder::SeederConfig>();
        round_trip::<tracker::TrackerConfig>();
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error =
            parse::<agent::AgentConfig>("a.toml", "zone = \"x\"\n[mirror]\nlisen = \"x\"\n").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("a.toml:3: unknown field `lisen`, expected one of `listen`"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }

    #[test]
    fn a_wrong_value_says_what_would_be_right() {
        let text = "[limits]\nupload = \"fast\"\n";
        let error = parse::<agent::AgentConfig>("a.toml", text).unwrap_err().to_string();
        assert!(error.starts_with("a.toml:2:") && error.contains("25MB/s"), "{error}");
    }

    #[test]
    fn secrets_are_never_printed() {
        let mut config = seeder::SeederConfig { cluster_key: "hush-key".into(), ..Default::default() };
        config
            .origin
            .registries
            .push(section::Registry { password: "hush-word".into(), ..Default::default() });
        let text = print_effective(&config);
        assert!(!text.contains("hush"), "{text}");
    }
}
