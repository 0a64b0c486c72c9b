//! Keys of conditions (`when`) of an AuthorizationPolicy: the attribute that each compares, and the form of its values. One
//! table, for the check of manifests and for the conversion to what node proxies enforce.

/// Key of a condition, or the beginning of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConditionKey {
    pub text: &'static str,
    pub syntax: KeySyntax,
    pub attribute: Attribute,
    pub values: ValueForm,
}

/// Relation of the text of a [`ConditionKey`] to the key in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySyntax {
    /// It is the whole key.
    Whole,
    /// A name in brackets follows, as in `request.headers[User-Agent]`.
    Named,
    /// Any text follows.
    Prefix,
}

/// Attribute that a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    SourceIp,
    SourceNamespace,
    SourcePrincipal,
    SourceServiceAccount,
    SourceTrustDomain,
    DestinationIp,
    DestinationPort,
    /// An attribute that only a proxy of requests knows.
    Request,
}

/// Form of the values of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueForm {
    /// A name, with `*` at one end at most.
    Name,
    /// `namespace/name`, or `name` in the namespace of the policy.
    ServiceAccount,
    /// An address, or a block of addresses.
    Block,
    /// A port number from 1.
    Port,
    /// Text that is not checked.
    Any,
}

impl Attribute {
    /// Returns true if node proxies can compare it: they see connections, not requests.
    pub const fn is_of_connection(self) -> bool {
        match self {
            Self::SourceIp
            | Self::SourceNamespace
            | Self::SourcePrincipal
            | Self::SourceServiceAccount
            | Self::SourceTrustDomain
            | Self::DestinationIp
            | Self::DestinationPort => true,
            Self::Request => false,
        }
    }
}

const fn whole(text: &'static str, attribute: Attribute, values: ValueForm) -> ConditionKey {
    ConditionKey { text, syntax: KeySyntax::Whole, attribute, values }
}

const fn request(text: &'static str, syntax: KeySyntax, values: ValueForm) -> ConditionKey {
    ConditionKey { text, syntax, attribute: Attribute::Request, values }
}

/// Every key that Istio knows, in the order of messages.
pub const CONDITION_KEYS: [ConditionKey; 15] = [
    whole("source.ip", Attribute::SourceIp, ValueForm::Block),
    whole("source.namespace", Attribute::SourceNamespace, ValueForm::Name),
    whole("source.principal", Attribute::SourcePrincipal, ValueForm::Name),
    whole("source.serviceAccount", Attribute::SourceServiceAccount, ValueForm::ServiceAccount),
    whole("source.trustDomain", Attribute::SourceTrustDomain, ValueForm::Name),
    whole("destination.ip", Attribute::DestinationIp, ValueForm::Block),
    whole("destination.port", Attribute::DestinationPort, ValueForm::Port),
    request("remote.ip", KeySyntax::Whole, ValueForm::Block),
    request("connection.sni", KeySyntax::Whole, ValueForm::Any),
    request("request.auth.principal", KeySyntax::Whole, ValueForm::Any),
    request("request.auth.audiences", KeySyntax::Whole, ValueForm::Any),
    request("request.auth.presenter", KeySyntax::Whole, ValueForm::Any),
    request("request.headers", KeySyntax::Named, ValueForm::Any),
    request("request.auth.claims", KeySyntax::Named, ValueForm::Any),
    request("experimental.envoy.filters.", KeySyntax::Prefix, ValueForm::Any),
];

impl ConditionKey {
    /// Finds the entry of a key as a policy has it.
    pub fn of(key: &str) -> Option<&'static Self> {
        CONDITION_KEYS.iter().find(|known| known.is(key))
    }

    fn is(&self, key: &str) -> bool {
        let Some(rest) = key.strip_prefix(self.text) else { return false };
        match self.syntax {
            KeySyntax::Whole => rest.is_empty(),
            // Longer than the brackets: a name in them is required.
            KeySyntax::Named => rest.len() > 2 && rest.starts_with('[') && rest.ends_with(']'),
            KeySyntax::Prefix => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_whole_text_its_name_in_brackets_or_its_prefix() {
        let attribute = |key: &str| ConditionKey::of(key).map(|key| key.attribute);

        assert_eq!(attribute("source.ip"), Some(Attribute::SourceIp));
        assert_eq!(attribute("source.ips"), None);
        assert_eq!(attribute("request.headers[User-Agent]"), Some(Attribute::Request));
        assert_eq!(attribute("request.headers[]"), None);
        assert_eq!(attribute("request.headers"), None);
        assert_eq!(attribute("experimental.envoy.filters.x[y]"), Some(Attribute::Request));
    }
}
