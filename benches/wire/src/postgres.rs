//! What asking the database each time would cost: a prepared SELECT by primary key, under pgbench.

use std::process::Command;

use crate::Failure;
use crate::process::run_client;
use crate::report::Report;

pub fn measure(database: &str, report: &mut Report) -> Result<(), Failure> {
    let quiet = Command::new("pgbench").args(["-i", "-q", "-s", "10", database]).output()?;
    if !quiet.status.success() {
        return Err(String::from_utf8_lossy(&quiet.stderr).into_owned().into());
    }
    let told =
        run_client("pgbench", &["-n", "-S", "-M", "prepared", "-c", "8", "-j", "1", "-T", "5", database])?;
    let line = told.lines().find(|line| line.starts_with("tps = ")).ok_or("pgbench tells its rate")?;
    let rate: f64 = line.split_whitespace().nth(2).ok_or("a number")?.parse()?;
    let figure = format!("{rate:.0} a second with 8 clients on both cores, {:.1} us each", 1e6 / rate);
    report.add("for comparison", "PostgreSQL SELECT by primary key, pgbench -M prepared", &figure, "-");
    Ok(())
}
