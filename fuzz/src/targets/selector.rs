//! What the user says about passwords, host names, time zones, accounts and networks. Errors must not tell the password.

use guestseal::guest::names::{check_hostname, check_timezone};
use guestseal::guest::password::{PasswordRequest, Selector};
use guestseal::operation::network::Network;
use guestseal::operation::schema::ParameterKind;
use guestseal::operation::user::User;

use crate::targets::check_error;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let user = PasswordRequest::user(text);
    let secret = match &user {
        Ok(request) => last_word(&text[request.user.len()..]),
        Err(_) => text.split_once(':').and_then(|(_, rest)| last_word(rest)),
    };
    hides(user.map(|request| format!("{:?}", request.selector)), secret);
    hides(PasswordRequest::root(text).map(|request| format!("{request:?}")), last_word(text));
    hides(Selector::parse(text).map(|selector| format!("{selector:?}")), last_word(text));
    let typed = text.rsplit_once(":password=").map(|(_, selector)| selector);
    let user = User::parse(text).map(|(user, _)| {
        let list = serde_json::to_string(&[&user]).unwrap_or_default();
        assert_eq!(User::list(&list), Ok(vec![user]));
        list
    });
    hides(user, typed.filter(|word| word.contains("hunter")));
    let network = Network::parse(text).map(|network| {
        let list = serde_json::to_string(&[&network]).unwrap_or_default();
        assert_eq!(Network::list(&list), Ok(vec![network]));
        list
    });
    hides(network, None);
    let _ = (User::list(text), Network::list(text));
    if check_hostname(text).is_ok() {
        assert!(ParameterKind::Hostname.check(text).is_ok() && !text.contains('/'));
    }
    if check_timezone(text).is_ok() {
        assert!(ParameterKind::Timezone.check(text).is_ok());
        assert!(!text.split('/').any(|part| part == ".."));
    }
}

/// What may be a password: the last word, when it cannot stand in an error by chance.
fn last_word(text: &str) -> Option<&str> {
    let word = text.rsplit(':').next()?;
    let is_file = text.split(':').any(|part| part == "file");
    (word.contains("hunter") && !is_file).then_some(word)
}

fn hides(result: guestseal::Result<String>, secret: Option<&str>) {
    let shown = match result {
        Ok(shown) => shown,
        Err(error) => {
            check_error(&error);
            format!("{error:?} {:?}", error.what_to_do())
        }
    };
    assert!(secret.is_none_or(|secret| !shown.contains(secret)), "{shown}");
}
