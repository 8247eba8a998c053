//! The table `log_head`: one row, the last number of the change log and what all nodes share.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "log_head")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i16,
    pub log_id: Uuid,
    pub position: i64,
    pub lease_ms: i64,
    pub everyone_epoch: i64,
    pub everyone_time: i64,
    pub lease_target_ms: i64,
    pub lease_longest_ms: i64,
    pub lease_change: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
