//! The table `sessions`. `over_time` is `min(expire_time, last_seen_time + idle_limit_ms)`, for purging and lists only:
//! whether a session stands is never read from it.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sessions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub session_id: Uuid,
    #[sea_orm(unique)]
    pub digest: Vec<u8>,
    pub user_id: Uuid,
    pub user_epoch: i64,
    pub everyone_epoch: i64,
    pub create_time: i64,
    pub authenticate_time: i64,
    pub expire_time: i64,
    pub last_seen_time: i64,
    pub idle_limit_ms: i64,
    pub over_time: i64,
    pub remembered: bool,
    pub methods: String,
    pub client_ip: Option<String>,
    pub client_user_agent: String,
    pub client_device_name: String,
    pub end_time: Option<i64>,
    pub end_reason: Option<i16>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
