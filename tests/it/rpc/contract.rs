//! The contract as it was compiled, for tests that go through all of it.

use latchkey::grpc::proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet, MethodDescriptorProto, OneofDescriptorProto};

use crate::support::raw_call::field;

/// Deeper than any message of ours.
const DEPTH_MAX: u32 = 4;

/// The contract.
pub struct Contract(FileDescriptorSet);

/// A message in which one text is set.
pub struct WithText {
    /// The path of the field; a choice by its own name, as it is blamed where nothing was chosen.
    pub path: String,
    /// The name of the field itself.
    pub name: String,
    /// The message.
    pub message: Vec<u8>,
}

impl Contract {
    /// Reads it.
    pub fn read() -> Self {
        Self(FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors"))
    }

    /// `package.Service/Method` of every RPC of ours, and what it takes and gives.
    pub fn methods(&self) -> Vec<(String, &MethodDescriptorProto)> {
        let services = self.0.file.iter().flat_map(|file| file.service.iter().map(move |one| (file, one)));
        let methods = services.flat_map(|(file, service)| {
            let name = move |method: &str| format!("{}.{}/{method}", file.package(), service.name());
            service.method.iter().map(move |method| (name(method.name()), method))
        });
        methods.collect()
    }

    /// Every message of ours by its full name, with a dot in front.
    pub fn messages(&self) -> Vec<(String, &DescriptorProto)> {
        let ours = self.0.file.iter().filter(|file| file.package().starts_with("latchkey."));
        let named = ours.flat_map(|file| {
            file.message_type
                .iter()
                .map(|message| (format!(".{}.{}", file.package(), message.name()), message))
        });
        named.collect()
    }

    /// For each text that a message can hold, however deep: the message that holds just these bytes there.
    pub fn with_each_text(&self, message: &str, bytes: &[u8]) -> Vec<WithText> {
        self.with_text_below(message, bytes, DEPTH_MAX)
    }

    fn with_text_below(&self, message: &str, bytes: &[u8], depth: u32) -> Vec<WithText> {
        let found = self.messages().into_iter().find(|(name, _)| name == message);
        let Some((_, message)) = found.filter(|_| depth > 0) else { return Vec::new() };
        let mut all = Vec::new();
        for one in &message.field {
            let number = u32::try_from(one.number()).expect("positive");
            let choice =
                one.oneof_index.map(|at| &message.oneof_decl[usize::try_from(at).expect("an index")]);
            let path = choice.map_or(one.name(), OneofDescriptorProto::name);
            let set = |path: String, name: &str, value: &[u8]| WithText {
                path,
                name: name.to_owned(),
                message: field(number, value),
            };
            match one.r#type() {
                Type::String => all.push(set(path.to_owned(), one.name(), bytes)),
                Type::Message => {
                    let inner = self.with_text_below(one.type_name(), bytes, depth - 1);
                    let outer =
                        |inner: WithText| set(format!("{path}.{}", inner.path), &inner.name, &inner.message);
                    all.extend(inner.into_iter().map(outer));
                }
                _ => {}
            }
        }
        all
    }
}
