//! Compiles the contract with protox, so that no protoc is needed, and keeps the descriptors for reflection.
//!
//! A message with a field marked `debug_redact` gets a `Debug` that shows nothing, so that no log line can ever hold a
//! password or a token: prost's own would print both.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use protox::prost_reflect::{self, DescriptorPool};

#[expect(clippy::disallowed_macros, reason = "this is how a build script talks to cargo")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files([
        "latchkey/v1/auth_service.proto",
        "latchkey/admin/v1/user_service.proto",
        "latchkey/admin/v1/fleet_service.proto",
    ])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The compiler's own encoding keeps options that the typed set does not know.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let secret = secret_bearing(&compiler.descriptor_pool());
    fs::write(out.join("redacted_debug.rs"), redacted_debug(&secret)?)?;
    let paths = secret.iter().map(|(package, message)| format!(".{package}.{message}"));
    tonic_prost_build::configure().skip_debug(paths).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Package and name of each message that has a field marked `debug_redact`.
fn secret_bearing(pool: &DescriptorPool) -> Vec<(String, String)> {
    let secret = |field: prost_reflect::FieldDescriptor| {
        let option = field.options().get_field_by_name("debug_redact").map(|value| value.as_bool());
        option == Some(Some(true))
    };
    let messages = pool.all_messages().filter(|message| message.fields().any(secret));
    messages.map(|message| (message.package_name().to_owned(), message.name().to_owned())).collect()
}

/// A `Debug` for each of them that shows the name and nothing else.
fn redacted_debug(messages: &[(String, String)]) -> Result<String, std::fmt::Error> {
    let mut code = String::new();
    for (package, message) in messages {
        let path = package.replace('.', "::");
        writeln!(
            code,
            "impl std::fmt::Debug for {path}::{message} {{\n    \
                 fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{\n        \
                     f.write_str(\"{message}(..)\")\n    }}\n}}"
        )?;
    }
    Ok(code)
}
