//! The route table: all the proxy knows. The manager makes it, the proxy serves by it; neither looks behind it.

mod claim;
mod error_page;
mod flow;
mod front;
mod halt;
mod host;
mod indexes;
mod listen;
mod path;
mod redirect;
mod settings;
mod table;
mod target;

pub use claim::{Claim, places};
pub use error_page::{ErrorPages, Errors, error_page};
pub use flow::{Flow, Timeouts};
pub use front::{FRONT_MAX, Front, Pair, Pem, Tls};
pub use halt::{Halt, Maintenance, Pause};
pub use host::{HostError, HostPattern, host_name};
pub use indexes::{Indexes, TooManyIndexes};
pub use listen::{Listen, Place};
pub use path::{RoutePath, RoutePathError, longest_match};
pub use redirect::{Redirect, RedirectError, endless, redirected, rest_of_path};
pub use settings::RouteSettings;
pub use table::{Development, Route, RouteTable, Trouble, Work};
pub use target::{Address, Protocol, Scripts, Target, Upstream};
