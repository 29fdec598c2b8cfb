//! Agents over real sockets: sound ones, and those that answer too much, too slowly, too little, or nonsense.

use std::time::Duration;

use coredinator_coord::{
    HttpTransport,
    transport::{AgentTransport, Ask, DecisionMessage, NegotiationAnswer, NegotiationRequest, TransportError},
};
use coredinator_core::coordination::{Agent, AgentId, Intention};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const PATIENCE: Duration = Duration::from_secs(30);
const SOUND: &str = r#"{"agent_id": "a", "seq": 3, "options": [{"id": "run", "demands": {"steam": 2}, "utility": 1}]}"#;

/// An agent that answers every request on a connection with these bytes, `endless`ly the last part.
async fn serve(head: String, endless: &'static [u8], pause: Duration) -> Agent {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = head.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(head.as_bytes()).await;
                while !endless.is_empty() && stream.write_all(endless).await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
            });
        }
    });
    Agent { endpoint: Some(format!("http://{address}/agent/")), ..Agent::new(AgentId::new("a").unwrap()) }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

async fn ask(agent: &Agent) -> Result<Intention, TransportError> {
    let ask = Ask { group: "default".into(), cycle: 7, epoch: 2 };
    tokio::time::timeout(PATIENCE, HttpTransport::new().intention(agent, &ask)).await.unwrap()
}

async fn offer(agent: &Agent) -> Result<NegotiationAnswer, TransportError> {
    let proposed = json!({"agent_id": "a", "outcome": "denied", "option_id": null, "fraction": 0, "values": {}, "grant": {},
        "action": null, "utility": 0, "reason": {"code": "", "text": ""}});
    let request = json!({"group": "default", "cycle": 7, "epoch": 2, "round": 1, "prices": {}, "proposed": proposed, "conflicts": []});
    let request: NegotiationRequest = serde_json::from_value(request).unwrap();
    tokio::time::timeout(PATIENCE, HttpTransport::new().negotiate(agent, &request)).await.unwrap()
}

#[tokio::test]
async fn a_sound_answer_is_understood() {
    let intention = ask(&serve(answer("200 OK", SOUND), b"", Duration::ZERO).await).await.unwrap();
    assert_eq!((intention.seq, intention.options[0].demands["steam"]), (3, 2.0));
    // Whose it is goes without saying.
    let nameless = SOUND.replace(r#""agent_id": "a", "#, "");
    assert_eq!(ask(&serve(answer("200 OK", &nameless), b"", Duration::ZERO).await).await.unwrap(), intention);
    let revised = format!(r#"{{"accept": false, "intention": {nameless}}}"#);
    let answered = offer(&serve(answer("200 OK", &revised), b"", Duration::ZERO).await).await.unwrap();
    assert_eq!(answered.intention, Some(intention));
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_of_that_agent_alone() {
    let other = SOUND.replace("\"a\"", "\"b\"");
    for (body, what) in [
        (other.as_str(), "another agent's"),
        ("NaN", "no JSON"),
        (r#"{"agent_id": "a", "options": [{"id": "x", "utility": NaN}]}"#, "NaN"),
        (r#"{"agent_id": "a", "options": [{"id": "x", "utility": 1e999}]}"#, "more than a double holds"),
        (r#"{"agent_id": "a", "options": [], "surprise": 1}"#, "an unknown field"),
        ("", "nothing"),
        (&"[".repeat(200_000), "depth without end"),
    ] {
        let told = ask(&serve(answer("200 OK", body), b"", Duration::ZERO).await).await;
        assert!(matches!(told, Err(TransportError::Garbage(_))), "{what}: {told:?}");
    }
    let told = offer(&serve(answer("200 OK", SOUND), b"", Duration::ZERO).await).await;
    assert!(matches!(told, Err(TransportError::Garbage(_))), "a bare intention answers no offer: {told:?}");
    let told = ask(&serve(answer("500 Oh", SOUND), b"", Duration::ZERO).await).await;
    assert_eq!(told, Err(TransportError::Status(500)));
    let told = ask(&serve(answer("302 Found", ""), b"", Duration::ZERO).await).await;
    assert_eq!(told, Err(TransportError::Status(302)), "redirects are not followed");
    let told = ask(&serve("SMTP ready\r\n".to_owned(), b"", Duration::ZERO).await).await;
    assert!(matches!(told, Err(TransportError::Unreachable(_))), "{told:?}");
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned();
    let told = ask(&serve(half, b"", Duration::ZERO).await).await;
    assert!(matches!(told, Err(TransportError::Unreachable(_))), "{told:?}");
}

#[tokio::test]
async fn a_body_without_end_is_read_to_the_limit_and_no_further() {
    static SPACE: [u8; 65_536] = [b' '; 65_536];
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 52428800\r\n\r\n".to_owned();
    let silent_about_it = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned();
    for head in [announced, silent_about_it] {
        let told = ask(&serve(head, &SPACE, Duration::ZERO).await).await;
        assert_eq!(told, Err(TransportError::TooLarge { limit: HttpTransport::MAX_ANSWER }));
    }
}

#[tokio::test]
async fn who_drips_is_given_up_by_whoever_asks() {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned();
    let agent = serve(head, b" ", Duration::from_millis(1)).await;
    let transport = HttpTransport::new();
    let ask = Ask { group: "default".into(), cycle: 1, epoch: 1 };
    assert!(tokio::time::timeout(Duration::from_millis(200), transport.intention(&agent, &ask)).await.is_err());
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let agent = Agent { endpoint: Some(endpoint), ..Agent::new(AgentId::new("a").unwrap()) };
    assert!(matches!(ask(&agent).await, Err(TransportError::Unreachable(_))));
}

/// Reads a text as a message, which says all that the text does and nothing else.
fn same<T: Serialize + DeserializeOwned>(text: &str) -> T {
    let told: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let message: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(serde_json::to_value(&message).unwrap(), told);
    message
}

#[test]
fn the_guide_shows_what_agents_get_and_answer() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/coordination.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let (_, section) = guide.split_once("### Agents that are asked\n").expect("there is a section about it");
    let section = section.split("\n## ").next().unwrap();
    let shown: Vec<&str> = section.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [intention, decision, offer, answer] = shown[..] else { panic!("{} bodies are shown", shown.len()) };
    let wanted = same::<Intention>(intention);
    let told = same::<DecisionMessage>(decision);
    assert!(wanted.options.iter().any(|option| Some(&option.id) == told.decision.option_id.as_ref()));
    assert_eq!(same::<NegotiationRequest>(offer).proposed.agent_id, wanted.agent_id);
    let revised = same::<NegotiationAnswer>(answer).intention.unwrap();
    assert_eq!(revised.agent_id, wanted.agent_id);
    let content = "{\"accept\": true}";
    assert!(section.contains(content) && same::<NegotiationAnswer>(content).accept);
}
