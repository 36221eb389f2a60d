//! Who may ask for what: root and our own user may, others if polkit says so (polkit(8)).

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Semaphore;
use zbus::fdo::DBusProxy;
use zbus::{Connection, Variant, connection};

/// How long somebody may take to find their password.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// `AllowUserInteraction` of `CheckAuthorization`.
const INTERACTIVE: u32 = 1;

#[zbus::proxy(
    interface = "org.freedesktop.PolicyKit1.Authority",
    default_service = "org.freedesktop.PolicyKit1",
    default_path = "/org/freedesktop/PolicyKit1/Authority"
)]
trait Authority {
    #[allow(clippy::type_complexity, reason = "as the interface has it")]
    fn check_authorization(
        &self,
        subject: &(&str, HashMap<&str, Variant<'_>>),
        action_id: &str,
        details: HashMap<&str, &str>,
        flags: u32,
        cancellation_id: &str,
    ) -> zbus::Result<(bool, bool, HashMap<String, String>)>;
}

/// Whether the peer `sender` on the bus of `connection` may do `action`, a polkit action. On a bus without polkit only root and our
/// own user may do anything.
///
/// # Errors
/// Why not, as a sentence.
pub async fn authorise(connection: &Connection, sender: &str, action: &str) -> Result<(), String> {
    let uid = user_of(connection, sender).await?;
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let Ok(_turn) = ASKING.try_acquire() else {
        return Err("too many ask for it at the same time; try again".to_owned());
    };
    match ask(sender, action).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("polkit does not allow it ({action})")),
        Err(error) => Err(format!("polkit ({action}) cannot be asked: {error}")),
    }
}

/// The user that the peer `sender` on the bus of `connection` runs as.
///
/// # Errors
/// That the bus does not say, as a sentence.
pub async fn user_of(connection: &Connection, sender: &str) -> Result<u32, String> {
    let uid = async {
        let bus = DBusProxy::new(connection).await?;
        Ok::<_, zbus::Error>(bus.get_connection_unix_user(sender.try_into()?).await?)
    };
    uid.await
        .map_err(|error| format!("who asks is not known: {error}"))
}

/// Who may ask polkit at the same time. Anybody may call, and an answer can take as long as [`PATIENCE`].
static ASKING: Semaphore = Semaphore::const_new(8);

/// On a connection of its own: an answer may take as long as a password.
async fn ask(sender: &str, action: &str) -> zbus::Result<bool> {
    let connection = connection::Builder::system()
        .method_timeout(PATIENCE)
        .build()
        .await?;
    let authority = AuthorityProxy::new(&connection).await?;
    let subject = (
        "system-bus-name",
        HashMap::from([("name", Variant::from(sender))]),
    );
    let answer = authority.check_authorization(&subject, action, HashMap::new(), INTERACTIVE, "");
    Ok(answer.await?.0)
}
