//! Codes of problems of manifests: one table of names, meanings and remedies.

use serde::{Deserialize, Serialize};

/// Sort of a problem. The names are stable: programs and log searches rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    Syntax,
    NoObject,
    UnknownKind,
    WrongVersion,
    UnknownField,
    InvalidValue,
    Duplicate,
    NotEnforced,
    UnsupportedKind,
    UnsupportedField,
    Unreadable,
    NoAnswer,
    NotAFile,
    TooLarge,
    SameDirectory,
    DirectoryGone,
    LastGoodNotSaved,
    LastGoodInvalid,
    InvalidOverlay,
}

/// Name of a code, and what its reader needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeEntry {
    /// Name in JSON and logs.
    pub name: &'static str,
    pub meaning: &'static str,
    pub remedy: &'static str,
}

const fn entry(name: &'static str, meaning: &'static str, remedy: &'static str) -> CodeEntry {
    CodeEntry { name, meaning, remedy }
}

impl Code {
    /// All codes, in the order of their declaration.
    pub const ALL: [Self; 19] = [
        Self::Syntax,
        Self::NoObject,
        Self::UnknownKind,
        Self::WrongVersion,
        Self::UnknownField,
        Self::InvalidValue,
        Self::Duplicate,
        Self::NotEnforced,
        Self::UnsupportedKind,
        Self::UnsupportedField,
        Self::Unreadable,
        Self::NoAnswer,
        Self::NotAFile,
        Self::TooLarge,
        Self::SameDirectory,
        Self::DirectoryGone,
        Self::LastGoodNotSaved,
        Self::LastGoodInvalid,
        Self::InvalidOverlay,
    ];

    /// Name in JSON and logs.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Name, meaning and remedy.
    #[rustfmt::skip] // One line for each code.
    pub const fn entry(self) -> CodeEntry {
        match self {
            Self::Syntax => entry("syntax", "The text is neither YAML nor JSON.", "Correct the place that the message names."),
            Self::NoObject => entry("no_object", "`apiVersion`, `kind` or the name is missing or invalid, so that the object is not known.", "Add or correct the field."),
            Self::UnknownKind => entry("unknown_kind", "The kind does not exist in this group.", "Use the kind that the message names."),
            Self::WrongVersion => entry("wrong_version", "The kind exists in another group or version.", "Use the `apiVersion` that the message names."),
            Self::UnknownField => entry("unknown_field", "The kind does not have this field.", "Use the field that the message names."),
            Self::InvalidValue => entry("invalid_value", "The value has the wrong type, or its field does not take it.", "Write a value of the form that the message names."),
            Self::Duplicate => entry("duplicate", "The same object is defined twice.", "Remove one of the definitions."),
            Self::NotEnforced => entry("not_enforced", "The kind is not supported here, and protects or routes traffic where it is.", "Do not rely on the object: use AuthorizationPolicy or PeerAuthentication."),
            Self::UnsupportedKind => entry("unsupported_kind", "The kind is not supported here.", "None: the object has no effect."),
            Self::UnsupportedField => entry("unsupported_field", "Fields that exist and have no effect here.", "None: the fields have no effect."),
            Self::Unreadable => entry("unreadable", "The file or directory cannot be read.", "Look at its permissions; see the message."),
            Self::NoAnswer => entry("no_answer", "The file or directory has not answered in time.", "Look at the file system, for instance a network mount."),
            Self::NotAFile => entry("not_a_file", "The name is that of a manifest, and it is not a regular file.", "Rename or remove it."),
            Self::TooLarge => entry("too_large", "The file, or the directory as a whole, exceeds a limit.", "Split or reduce it; the message names the limit."),
            Self::SameDirectory => entry("same_directory", "The directory is reached by a second path, where it is not read again.", "Remove the link."),
            Self::DirectoryGone => entry("directory_gone", "A directory of manifests is gone, or replaced by one without manifests. Its objects stay in force.", "Restore the directory, or restart without it."),
            Self::LastGoodNotSaved => entry("last_good_not_saved", "The copy for the next start could not be written or removed.", "Look at the state directory: space and permissions."),
            Self::LastGoodInvalid => entry("last_good_invalid", "The copy of an earlier start cannot be used.", "None, if the manifest is valid; else correct the manifest."),
            Self::InvalidOverlay => entry("invalid_overlay", "A file in the state directory is not what it should be.", "Remove the file; its writer writes it again."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_listed_once_in_the_order_of_declaration() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index, "{code:?}");
        }
        assert_eq!(Code::InvalidOverlay as usize + 1, Code::ALL.len());
    }
}
