//! Asks about a token in each way there is, so that no way can answer otherwise than the others.

use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::load_user_request::By;
use latchkey::grpc::proto::v1::stream_validate_sessions_response::Answer;
use tonic::{Code, Status};

use super::refusals::reason_of;
use super::server::TestServer;

/// What became of a question: the id of the good session, or code and reason.
type Verdict = Result<String, (Code, String)>;

impl TestServer {
    /// Asks whether a token is good.
    pub async fn validate(&self, token: &str) -> Result<v1::ValidateSessionResponse, Status> {
        self.ask(question(token)).await
    }

    /// Asks a whole question.
    pub async fn ask(
        &self,
        question: v1::ValidateSessionRequest,
    ) -> Result<v1::ValidateSessionResponse, Status> {
        self.auth().await.validate_session(question).await.map(tonic::Response::into_inner)
    }

    /// Loads the user of a token.
    pub async fn load_by_token(&self, token: &str) -> Result<v1::LoadUserResponse, Status> {
        let request = v1::LoadUserRequest { by: Some(By::SessionToken(token.to_owned())) };
        self.auth().await.load_user(request).await.map(tonic::Response::into_inner)
    }

    /// Asks questions in one stream, and gives the answers until it ends.
    pub async fn ask_in_stream(
        &self,
        questions: Vec<v1::StreamValidateSessionsRequest>,
    ) -> Vec<v1::StreamValidateSessionsResponse> {
        let questions = futures_util::stream::iter(questions);
        let answers = self.auth().await.stream_validate_sessions(questions).await.expect("a stream");
        let mut answers = answers.into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await.expect("the stream ends well") {
            all.push(answer);
        }
        all
    }

    /// What ValidateSession, LoadUser and StreamValidateSessions say of a token; they must agree.
    pub async fn verdict(&self, token: &str) -> Verdict {
        let validated = self.validate(token).await.map(|good| good.session_id);
        let validated = validated.map_err(|refused| reason_of(&refused));
        let loaded =
            self.load_by_token(token).await.map(|loaded| loaded.session.expect("a session").session_id);
        let loaded = loaded.map_err(|refused| reason_of(&refused));
        let asked = v1::StreamValidateSessionsRequest { tag: 1, question: Some(question(token)) };
        let mut streamed = self.ask_in_stream(vec![asked]).await;
        let streamed = verdict_of(streamed.remove(0));
        assert_eq!((&validated, &validated), (&loaded, &streamed), "all ways to ask agree");
        validated
    }

    /// Asserts that a token is good, whichever way it is asked about.
    pub async fn assert_good(&self, token: &str) {
        self.verdict(token).await.expect("the session is good");
    }

    /// Asserts that a token is refused with this reason, whichever way it is asked about.
    pub async fn assert_dead(&self, token: &str, reason: &str) {
        assert_eq!(self.verdict(token).await, Err((Code::Unauthenticated, reason.to_owned())));
    }
}

/// The plain question about a token.
pub fn question(token: &str) -> v1::ValidateSessionRequest {
    v1::ValidateSessionRequest { session_token: token.to_owned(), ..v1::ValidateSessionRequest::default() }
}

/// What an answer of a stream says.
pub fn verdict_of(answer: v1::StreamValidateSessionsResponse) -> Verdict {
    match answer.answer.expect("an answer says something") {
        Answer::Good(good) => Ok(good.session_id),
        Answer::Refused(refused) => {
            let name = refused.reason().as_str_name();
            let reason = name.strip_prefix("ERROR_REASON_").expect("the names of reasons have a prefix");
            Err((Code::from(refused.code), reason.to_owned()))
        }
    }
}
