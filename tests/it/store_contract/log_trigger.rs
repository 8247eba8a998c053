//! MariaDB numbers the change log by a trigger, which a dump can leave out. A missing or changed one is named, put back by
//! `migrate up`, and never lets a change be acknowledged.

use latchkey::domain::session::EndReason;
use latchkey::store::coordination::Coordination as _;
use latchkey::store::sql::{OpenError, SqlLimits, SqlStore, migrate_up};
use latchkey::store::{EndTarget, Store as _, StoreError};

use super::samples::{NOW, add_user, sign_in, stamp, verdict};
use super::schema::Damage;
use crate::support::databases::{Engine, Raw, TestDatabase, run_on, url_of};

const DROP_TRIGGER: &str = "DROP TRIGGER change_log_number";
const MISSING_TRIGGER: &str = "trigger change_log_number on change_log is missing";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_changed_trigger_is_named_and_put_back() {
    run_on(Engine::Mariadb, async |db: &TestDatabase| {
        Damage::mendable(&[DROP_TRIGGER.to_owned()], MISSING_TRIGGER.to_owned()).check(db).await;
        let other =
            "CREATE TRIGGER change_log_number BEFORE INSERT ON change_log FOR EACH ROW SET NEW.position = 5";
        let changed = "trigger change_log_number on change_log has another body".to_owned();
        Damage::mendable(&[DROP_TRIGGER.to_owned(), other.to_owned()], changed).check(db).await;
        // What an older version answered OK to.
        let lost = "INSERT INTO change_log (position, nonce, kind, create_time) VALUES (0, '12345678', 7, 0)";
        let change = [DROP_TRIGGER.to_owned(), lost.to_owned()];
        Damage::mendable(&change, MISSING_TRIGGER.to_owned()).check(db).await;
        assert_eq!(db.raw().await.number("SELECT COUNT(*) FROM change_log").await, 0);
    })
    .await;
}

/// The trigger is seen only by accounts with a privilege that a node does not need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_may_not_see_the_trigger_tries_it() {
    run_on(Engine::Mariadb, async |db: &TestDatabase| {
        let raw = db.raw().await;
        let names = raw.rows("SELECT DATABASE()").await;
        let name: String = names[0].try_get_by_index(0).expect("a name");
        let account = format!("{}_u", name.trim_start_matches("latchkey_"));
        raw.run(&format!("CREATE USER {account}@'127.0.0.1'")).await;
        raw.run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO {account}@'127.0.0.1'")).await;
        let url = db.url().replace("//latchkey@", &format!("//{account}@"));
        let before = head(&raw).await;
        SqlStore::open(&url_of(&url), SqlLimits::default()).await.expect("a whole schema").close().await;
        assert_eq!(head(&raw).await, before, "whatever was tried is undone");
        raw.run(DROP_TRIGGER).await;
        let refused = SqlStore::open(&url_of(&url), SqlLimits::default()).await.err();
        assert!(
            matches!(&refused, Some(OpenError::SchemaDamaged { flaws }) if flaws == &[MISSING_TRIGGER]),
            "{refused:?}"
        );
        raw.run(&format!("DROP USER {account}@'127.0.0.1'")).await;
    })
    .await;
}

async fn head(raw: &Raw) -> i64 {
    raw.number("SELECT position * 1000 + everyone_epoch + (SELECT COUNT(*) FROM change_log) FROM log_head")
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_once_the_trigger_is_gone() {
    run_on(Engine::Mariadb, async |db: &TestDatabase| {
        let (store, raw) = (db.open().await, db.raw().await);
        let ada = add_user(&store, "ada").await;
        let session = sign_in(&store, &ada, NOW).await;
        assert_eq!(store.schema_flaws().await.expect("an answer"), Vec::<String>::new());
        let ending = async |target| store.end_sessions(target, EndReason::Revoked, stamp(NOW)).await;
        raw.run(DROP_TRIGGER).await;
        assert_eq!(store.schema_flaws().await.expect("an answer"), [MISSING_TRIGGER]);
        let targets = [
            EndTarget::Session(session.id),
            EndTarget::User { user: ada.id, except: None },
            EndTarget::Everyone,
        ];
        for target in targets {
            let refused = ending(target).await;
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        }
        let refused = store.start_new_log(stamp(NOW)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert_eq!(raw.number("SELECT COUNT(*) FROM change_log").await, 0, "whatever was refused is undone");
        assert_eq!(verdict(&store, session.id, NOW).await, Ok(()), "the session stands");
        // Numbers that look right, and a head that does not move, or moves elsewhere. A connection that wrote before has
        // what the whole trigger has shown it.
        migrate_up(&url_of(db.url()), SqlLimits::default()).await.expect("put back");
        let before = sign_in(&store, &ada, NOW).await;
        assert_eq!(ending(EndTarget::Session(before.id)).await.expect("an answer").position.as_i64(), 1);
        raw.run("DELETE FROM change_log").await;
        for body in [
            "SET NEW.position = 1",
            "SET NEW.position = 2, NEW.epoch = 2",
            "BEGIN UPDATE log_head SET position = position + 1; SET NEW.position = 2, NEW.epoch = 2; END",
            "BEGIN UPDATE log_head SET position = (@latchkey_head := position + 1); SET NEW.position = 7; END",
            "BEGIN UPDATE log_head SET position = (@latchkey_head := position + 1); \
             SET NEW.position = @latchkey_head, NEW.epoch = IF(NEW.kind = 7, 2, NULL); \
             IF NEW.kind <> 7 THEN SET NEW.position = 9; END IF; END",
        ] {
            let trigger = "CREATE OR REPLACE TRIGGER change_log_number BEFORE INSERT ON change_log FOR EACH ROW";
            raw.run(&format!("{trigger} {body}")).await;
            for target in targets {
                let refused = ending(target).await;
                assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{body}: {refused:?}");
            }
            assert_eq!(verdict(&store, session.id, NOW).await, Ok(()), "the session stands");
        }
        // The control: the same calls, with the trigger.
        migrate_up(&url_of(db.url()), SqlLimits::default()).await.expect("put back");
        let ended = ending(EndTarget::Session(session.id)).await.expect("an answer");
        assert_eq!(ended.position.as_i64(), 2);
        assert!(verdict(&store, session.id, NOW).await.is_err(), "it ended");
        let everyone = ending(EndTarget::Everyone).await.expect("an answer");
        assert_eq!(everyone.position.as_i64(), 3);
    })
    .await;
}
