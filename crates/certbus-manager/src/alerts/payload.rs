//! A message as programs get it: JSON by webhook and on a program's standard input.

use certbus_store::outbox::Delivery;
use serde::Serialize;

/// What is posted. `text` is for chats, as Slack reads it.
#[derive(Debug, Serialize)]
struct Payload<'a> {
    id: &'a str,
    text: String,
    event: certbus_core::alert::Event,
    tenant: &'a str,
    title: &'a str,
    words: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a certbus_core::alert::Problem>,
    at: certbus_core::time::Timestamp,
}

/// The JSON of a message: the same in every attempt.
pub(super) fn json(delivery: &Delivery) -> String {
    let body = &delivery.body;
    let text = chat(&format!("*{}*\n{}", body.title, body.words));
    let payload = Payload {
        id: &delivery.uid,
        text,
        event: body.event,
        tenant: &delivery.tenant,
        title: &body.title,
        words: &body.words,
        problem: body.problem.as_ref(),
        at: body.at,
    };
    serde_json::to_string(&payload).unwrap_or_default()
}

/// Foreign words in a chat call nobody and lead nowhere: Slack reads `<!channel>` and `<https://…|text>`.
fn chat(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_in_a_chat_call_nobody() {
        assert_eq!(chat("<!channel> & <https://evil|shop>"), "&lt;!channel&gt; &amp; &lt;https://evil|shop&gt;");
    }
}
