//! CustomResourceDefinitions of the kinds that are read and that a cluster does not have by itself: names, versions, columns
//! and fields are those of Istio, and schemas come from the types with which objects are read.
//!
//! Kinds of the Gateway API are not among them: their types here have only the fields that the mesh reads, and a cluster gets
//! them from that project.

mod schema;

use serde_json::{Value, json};

use crate::istio::{
    AuthorizationPolicySpec, DestinationRuleSpec, PeerAuthenticationSpec, ServiceEntrySpec, VirtualServiceSpec,
    WorkloadEntrySpec,
};
use crate::kinds::Kind;

pub use schema::SchemaError;

/// Facts of a kind that its type does not say.
struct Definition {
    kind: Kind,
    spec: fn() -> Result<Value, SchemaError>,
    short_name: &'static str,
    /// Columns of `kubectl get`: title, type and path.
    columns: &'static [(&'static str, &'static str, &'static str)],
    /// Bounds by path of the field below `spec`; `[]` is every item of a list, `{}` every value of a map.
    bounds: &'static [(&'static str, Bound)],
}

/// Bound of a value, beside its type. Those of Istio, or wider.
enum Bound {
    /// Fields of an object that must be there.
    Required(&'static [&'static str]),
    Number(&'static str, u64),
}

const fn most_items(count: u64) -> Bound {
    Bound::Number("maxItems", count)
}

const fn fewest_items(count: u64) -> Bound {
    Bound::Number("minItems", count)
}

const fn longest(characters: u64) -> Bound {
    Bound::Number("maxLength", characters)
}

const fn shortest(characters: u64) -> Bound {
    Bound::Number("minLength", characters)
}

const fn least(number: u64) -> Bound {
    Bound::Number("minimum", number)
}

const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");

/// The kinds, in the order of their names.
const DEFINITIONS: [Definition; 6] = [
    Definition {
        kind: Kind::AuthorizationPolicy,
        spec: schema::of::<AuthorizationPolicySpec>,
        short_name: "ap",
        columns: &[("Action", "string", ".spec.action"), AGE],
        bounds: &[
            ("selector.matchLabels", Bound::Number("maxProperties", 4096)),
            ("selector.matchLabels{}", longest(63)),
            ("targetRef", Bound::Required(&["kind", "name"])),
            ("targetRef.kind", shortest(1)),
            ("targetRef.name", shortest(1)),
            ("targetRefs", most_items(16)),
            ("targetRefs[]", Bound::Required(&["kind", "name"])),
            ("targetRefs[].kind", shortest(1)),
            ("targetRefs[].name", shortest(1)),
            ("rules", most_items(512)),
            ("rules[].from", most_items(512)),
            ("rules[].when[]", Bound::Required(&["key"])),
        ],
    },
    Definition {
        kind: Kind::DestinationRule,
        spec: schema::of::<DestinationRuleSpec>,
        short_name: "dr",
        columns: &[("Host", "string", ".spec.host"), AGE],
        bounds: &[("", Bound::Required(&["host"])), ("subsets[]", Bound::Required(&["name"]))],
    },
    Definition {
        kind: Kind::PeerAuthentication,
        spec: schema::of::<PeerAuthenticationSpec>,
        short_name: "pa",
        columns: &[("Mode", "string", ".spec.mtls.mode"), AGE],
        bounds: &[
            ("selector.matchLabels", Bound::Number("maxProperties", 4096)),
            ("selector.matchLabels{}", longest(63)),
            ("portLevelMtls", Bound::Number("minProperties", 1)),
        ],
    },
    Definition {
        kind: Kind::ServiceEntry,
        spec: schema::of::<ServiceEntrySpec>,
        short_name: "se",
        columns: &[
            ("Hosts", "string", ".spec.hosts"),
            ("Location", "string", ".spec.location"),
            ("Resolution", "string", ".spec.resolution"),
            AGE,
        ],
        bounds: &[
            ("", Bound::Required(&["hosts"])),
            ("hosts", fewest_items(1)),
            ("hosts", most_items(256)),
            ("addresses", most_items(256)),
            ("ports", most_items(256)),
            ("ports[]", Bound::Required(&["number", "name"])),
            ("ports[].number", least(1)),
            ("endpoints", most_items(4096)),
        ],
    },
    Definition {
        kind: Kind::VirtualService,
        spec: schema::of::<VirtualServiceSpec>,
        short_name: "vs",
        columns: &[("Gateways", "string", ".spec.gateways"), ("Hosts", "string", ".spec.hosts"), AGE],
        bounds: &[
            ("http[].route[]", Bound::Required(&["destination"])),
            ("http[].route[].destination", Bound::Required(&["host"])),
        ],
    },
    Definition {
        kind: Kind::WorkloadEntry,
        spec: schema::of::<WorkloadEntrySpec>,
        short_name: "we",
        columns: &[AGE, ("Address", "string", ".spec.address")],
        bounds: &[],
    },
];

/// Returns the CustomResourceDefinitions, one for each kind.
///
/// # Errors
/// When a type has no schema, or a bound is about a field that it does not have: a mistake of this crate.
pub fn custom_resources() -> Result<Vec<Value>, SchemaError> {
    DEFINITIONS.iter().map(Definition::custom_resource).collect()
}

impl Definition {
    fn custom_resource(&self) -> Result<Value, SchemaError> {
        let kind = self.kind;
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
            "spec": self.bounded()?,
            // Istio's statuses have more fields than are written here.
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}});
        let columns: Vec<_> = self
            .columns
            .iter()
            .map(|(name, r#type, path)| json!({"name": name, "type": r#type, "jsonPath": path}))
            .collect();
        let versions: Vec<_> = kind
            .versions()
            .enumerate()
            .map(|(index, version)| {
                json!({
                    "name": version, "served": true, "storage": index == 0, "subresources": {"status": {}},
                    "additionalPrinterColumns": columns, "schema": schema,
                })
            })
            .collect();
        let (name, plural, group) = (kind.name(), kind.plural(), kind.group());
        let singular = name.to_ascii_lowercase();
        let category = group.split('.').next().unwrap_or_default();
        Ok(json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {
                    "kind": name, "listKind": format!("{name}List"), "plural": plural, "singular": singular,
                    "shortNames": [self.short_name], "categories": ["istio-io", format!("{category}-istio-io")],
                },
                "versions": versions,
            },
        }))
    }

    /// The schema of the specification with its bounds.
    fn bounded(&self) -> Result<Value, SchemaError> {
        let mut spec = (self.spec)()?;
        for (path, bound) in self.bounds {
            let field = spec.pointer_mut(&pointer(path)).and_then(Value::as_object_mut);
            let Some(field) = field else {
                let error = format!("{}: the type has no field spec.{path}", self.kind);
                return Err(serde::de::Error::custom(error));
            };
            match bound {
                Bound::Required(names) => field.insert("required".to_owned(), json!(names)),
                Bound::Number(name, number) => field.insert((*name).to_owned(), json!(number)),
            };
        }
        Ok(spec)
    }
}

/// The JSON pointer of a field in the schema of its specification.
fn pointer(path: &str) -> String {
    let mut pointer = String::new();
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let name = step.trim_end_matches("[]").trim_end_matches("{}");
        pointer.push_str(&format!("/properties/{name}"));
        match &step[name.len()..] {
            "[]" => pointer.push_str("/items"),
            "{}" => pointer.push_str("/additionalProperties"),
            _ => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;

    fn definition(kind: &str) -> Value {
        let all = custom_resources().unwrap();
        all.into_iter().find(|definition| definition["spec"]["names"]["kind"] == kind).unwrap()
    }

    #[test]
    fn a_definition_has_every_version_that_is_read_and_stores_the_first() {
        for (kind, versions) in
            [("AuthorizationPolicy", &["v1", "v1beta1"][..]), ("ServiceEntry", &["v1", "v1beta1", "v1alpha3"])]
        {
            let definition = definition(kind);
            let found = definition["spec"]["versions"].as_array().unwrap();

            assert_eq!(found.iter().map(|version| version["name"].as_str().unwrap()).collect::<Vec<_>>(), versions);
            assert!(found.iter().all(|version| version["served"] == true));
            let stored: Vec<_> = found.iter().filter(|version| version["storage"] == true).collect();
            assert_eq!(stored, [&found[0]], "{kind}");
        }
    }

    #[test]
    fn schemas_have_the_values_and_bounds_of_the_api() {
        let spec = |kind: &str, path: &str| {
            let definition = definition(kind);
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            schema.pointer(&pointer(path)).cloned().unwrap()
        };

        assert_eq!(spec("AuthorizationPolicy", "action")["enum"], json!(["ALLOW", "DENY", "AUDIT", "CUSTOM"]));
        assert_eq!(spec("AuthorizationPolicy", "rules[].when[]")["required"], json!(["key"]));
        assert_eq!(spec("PeerAuthentication", "portLevelMtls{}.mode")["enum"][3], "STRICT");
        assert_eq!(spec("ServiceEntry", "endpoints[].ports{}")["maximum"], 65535);
        assert_eq!(spec("ServiceEntry", "ports[].number")["minimum"], 1);
        assert_eq!(spec("WorkloadEntry", "labels{}"), json!({"type": "string"}));
    }

    /// Every kind outside of Kubernetes' own groups is defined, unless another project does it.
    #[test]
    fn no_kind_of_istio_is_missing() {
        let names: Vec<_> = DEFINITIONS.iter().map(|definition| definition.kind).collect();
        let istio = Kind::ALL.iter().copied().filter(|kind| kind.group().ends_with("istio.io"));

        for kind in istio {
            assert!(names.contains(&kind), "{kind}");
        }
    }

    /// Objects that an API server stores by the schema are read here.
    #[test]
    fn an_object_of_every_field_of_the_schema_is_read() {
        fn example(schema: &Value) -> Value {
            match schema["type"].as_str().unwrap() {
                "object" if schema["additionalProperties"].is_object() => {
                    json!({"1": example(&schema["additionalProperties"])})
                }
                "object" => {
                    let fields = schema["properties"].as_object().into_iter().flatten();
                    fields.map(|(name, schema)| (name.clone(), example(schema))).collect()
                }
                "array" => json!([example(&schema["items"])]),
                "integer" => schema["maximum"].clone(),
                "number" => json!(12.5),
                "boolean" => json!(true),
                "string" => schema["enum"].as_array().map_or_else(|| json!("x"), |values| values[0].clone()),
                other => panic!("{other}"),
            }
        }
        for definition in &DEFINITIONS {
            let object = json!({"metadata": {"name": "x"}, "spec": example(&definition.bounded().unwrap())});

            let read = Resource::from_value(definition.kind, object.clone()).unwrap();

            let (mut written, mut wanted) = (read.to_value()["spec"].take(), object["spec"].clone());
            // A default is not written.
            for value in [&mut written, &mut wanted] {
                value.as_object_mut().unwrap().retain(|_, field| !field.is_string());
            }
            assert_eq!(written, wanted, "{}", definition.kind);
        }
    }
}
