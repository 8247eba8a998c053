//! The table `users`. `Debug` shows the id only, since a row holds a password hash.

use std::fmt;

use sea_orm::entity::prelude::*;

#[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: Uuid,
    #[sea_orm(unique)]
    pub login_key: Vec<u8>,
    pub login_display: String,
    pub display_name: String,
    pub state: i16,
    pub roles: String,
    pub attributes: String,
    pub password_hash: Option<String>,
    pub credential_epoch: i64,
    pub password_epoch: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub password_time: Option<i64>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "users::Model({})", self.user_id)
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
