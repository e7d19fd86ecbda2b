//! What operators order.

use gitamp::view::command::OrderRequest;
use gitamp::view::operator::{Operator, Role};

use super::house::House;

/// Lines of one input that count.
const MOST_LINES: usize = 40;

/// A line each: an order of somebody (`{...}` of the daemon's own user, `1{...}` to `3{...}` of who may view, operate or approve what others
/// wrote), or behind `!` something that happens to the fleet meanwhile. Whatever is taken is told in harmless lines, nobody does more than they
/// may, and a successor goes on from what was stored.
pub fn orders(input: &[u8]) {
    let mut house = House::open();
    for line in input.split(|byte| *byte == b'\n').take(MOST_LINES) {
        if let Some(what) = line.strip_prefix(b"!") {
            house.happens(what);
            continue;
        }
        let role = match line.first() {
            Some(b'1') => Some(Role::View),
            Some(b'2') => Some(Role::Operate),
            Some(b'3') => Some(Role::Approve),
            Some(_) | None => None,
        };
        let (who, order) = match role {
            Some(role) => {
                let email = Some("ada@example.com".to_owned());
                (Operator { by: "ada (API)".to_owned(), role, email, approves_own: false }, &line[1..])
            }
            None => (Operator::local("ann"), line),
        };
        let request: Result<OrderRequest, _> = serde_json::from_slice(order);
        if let Some(request) = request.ok().and_then(|request| request.checked().ok()) {
            // How it ends is judged where it is carried out.
            let _outcome = house.order(request, &who);
        }
    }
    house.close();
}
