//! The table `change_log`: everything that took validity away, in commit order.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "change_log")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i64,
    pub nonce: Vec<u8>,
    pub kind: i16,
    pub user_id: Option<Uuid>,
    pub session_id: Option<Uuid>,
    pub epoch: Option<i64>,
    pub create_time: i64,
    pub key_id: Option<i16>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
