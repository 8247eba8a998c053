//! The table `nodes`: one row for each node that joined and has not left.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "nodes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub node_id: Uuid,
    pub name: String,
    pub state: i16,
    pub applied_position: i64,
    pub applied_nonce: Option<Vec<u8>>,
    pub join_time: i64,
    pub heard_time: i64,
    pub evict_time: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
