//! `healthcheck`: for supervisors and containers that can run a command but speak no gRPC.

use clap::Args;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use super::connection::Connection;
use super::failure::{Exit, Failure, Outcome};
use super::output;

/// Ask a server whether it is serving: exit code 0 if it is, 1 if not, 69 if it cannot be reached.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  latchkey healthcheck\n  latchkey healthcheck --service latchkey.v1.AuthService --timeout-s 2"
)]
pub(super) struct Healthcheck {
    /// What to ask about: readiness, liveness, or the name of a gRPC service.
    #[arg(long, value_name = "NAME", default_value = "readiness")]
    service: String,
    #[command(flatten)]
    connection: Connection,
}

impl Healthcheck {
    pub(super) fn run(self) -> Outcome {
        let service = self.service;
        self.connection.run(async move |server| {
            let answer = server.health().check(HealthCheckRequest { service: service.clone() }).await;
            let answer = answer.map_err(|status| match status.code() {
                Code::NotFound => {
                    Failure::new(Exit::Refused, format!("the server serves nothing named {service}"))
                }
                _ => Failure::from(status),
            })?;
            match answer.into_inner().status() {
                ServingStatus::Serving => output::print("serving\n"),
                ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
                    Err(Failure::new(Exit::Refused, format!("{service} is not serving")))
                }
            }
        })
    }
}
