//! Sessions in every state that a question can be about.

use std::time::Duration;

use latchkey::domain::token::{KEY_LEN, KeyId, KeyRing, TokenKey};
use latchkey::grpc::proto::v1::change_password_request::Who;
use latchkey::grpc::proto::{admin, v1};

use crate::support::interposed_store::START;
use crate::support::server::{
    OTHER_PASSWORD, PASSWORD, TestServer, device, key_ring, new_user, open_request, span,
};

/// Tokens by what became of their sessions.
pub struct Scene {
    pub ada: v1::User,
    pub good: String,
    pub remembered: String,
    pub revoked: String,
    pub expired: String,
    pub password_changed: String,
    pub disabled: String,
    pub deleted: String,
    /// Signed with our key, and nobody has it.
    pub unknown: String,
    /// The same, and past its end.
    pub unknown_and_expired: String,
    /// Signed with another key of the same number.
    pub forged: String,
}

impl Scene {
    pub async fn set(server: &TestServer) -> Self {
        let attributes = [("team".to_owned(), "engines".to_owned())].into();
        let roles = vec!["reader".to_owned(), "writer".to_owned()];
        let ada = admin::CreateUserRequest {
            display_name: "Ada Lovelace".to_owned(),
            roles,
            attributes,
            ..new_user("Ada", "")
        };
        let ada = server.create_user(ada).await;
        let client = Some(device("192.0.2.7", "a browser", "a phone"));
        let request = v1::CreateSessionRequest { client, ..open_request(&ada) };
        let good = server.create_session(request).await.session_token;
        let request = v1::CreateSessionRequest { remember: true, ..open_request(&ada) };
        let remembered = server.create_session(request).await.session_token;
        let revoked = server.open_session(&ada).await.session_token;
        server.log_out(&revoked).await;
        let request = v1::CreateSessionRequest { lifetime: Some(span(1, 0)), ..open_request(&ada) };
        let expired = server.create_session(request).await.session_token;

        let bob = server.add_user("bob").await;
        let password_changed = server.open_session(&bob).await.session_token;
        let change = v1::ChangePasswordRequest {
            who: Some(Who::Login("bob".to_owned())),
            current_password: PASSWORD.to_owned(),
            new_password: OTHER_PASSWORD.to_owned(),
            client: None,
        };
        server.auth().await.change_password(change).await.expect("it changes");
        let (eve, zoe) = (server.add_bare_user("eve").await, server.add_bare_user("zoe").await);
        let disabled = server.open_session(&eve).await.session_token;
        server.disable(&eve).await;
        let deleted = server.open_session(&zoe).await.session_token;
        server.delete(&zoe).await;
        server.advance(Duration::from_secs(2)).await;
        // It will be made stale again by each run, which changes nothing more at that time.
        server.make_stale(&ada).await;

        let mint = |ring: &KeyRing, after: Duration| ring.mint(START.plus(after), &[9; 32]).0;
        let other_key = KeyRing::new(vec![TokenKey::new(KeyId(1), [8; KEY_LEN])]).expect("a ring");
        let (hour, second) = (Duration::from_hours(1), Duration::from_secs(1));
        Self {
            ada,
            good,
            remembered,
            revoked,
            expired,
            password_changed,
            disabled,
            deleted,
            unknown: mint(&key_ring(), hour).expose().to_owned(),
            unknown_and_expired: mint(&key_ring(), second).expose().to_owned(),
            forged: mint(&other_key, hour).expose().to_owned(),
        }
    }
}
