//! User names with holes: `system:node:{{EC2PrivateDNSName}}`.

/// What may stand in the holes.
pub(super) struct Values<'a> {
    pub account: &'a str,
    pub access_key_id: &'a str,
    /// Empty for users.
    pub session_name: &'a str,
    pub dns_name_of: &'a dyn Fn(&str) -> Option<String>,
}

/// Fills a template. A hole that nothing is known for, and a name that is not there, refuse the login.
pub(super) fn fill(template: &str, values: &Values) -> Result<String, String> {
    let mut name = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (hole, after) =
            after.split_once("}}").ok_or_else(|| format!("username {template:?}: a {{{{ has no end"))?;
        name.push_str(before);
        name.push_str(&value(hole.trim(), values)?);
        rest = after;
    }
    name.push_str(rest);
    if name.is_empty() { Err("the username is empty".to_owned()) } else { Ok(name) }
}

fn value(hole: &str, values: &Values) -> Result<String, String> {
    let session = || match values.session_name {
        "" => Err(format!("{{{{{hole}}}}} is for roles: the principal has no session")),
        name => Ok(name),
    };
    match hole {
        "AccessKeyID" => Ok(values.access_key_id.to_owned()),
        "AccountID" => Ok(values.account.to_owned()),
        "EC2PrivateDNSName" => {
            let id = session()?;
            let is_instance = id.starts_with("i-");
            let name = is_instance.then(|| (values.dns_name_of)(id)).flatten();
            name.ok_or_else(|| format!("session {id:?} is no instance whose name is known"))
        }
        // An @ would make a name look like one of another realm.
        "SessionName" => session().map(|name| name.replace('@', "-")),
        "SessionNameRaw" => session().map(str::to_owned),
        _ => Err(format!("{{{{{hole}}}}} is nothing that is known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled() {
        let dns_name_of = |id: &str| (id == "i-1").then(|| "ip-10-0-0-1.ec2.internal".to_owned());
        let of = |session_name| Values {
            account: "111122223333",
            access_key_id: "ASIAX",
            session_name,
            dns_name_of: &dns_name_of,
        };
        for (template, session, wanted) in [
            ("jo", "", Ok("jo")),
            ("{{AccountID}}:{{AccessKeyID}}", "", Ok("111122223333:ASIAX")),
            ("dev:{{SessionName}}", "jo@example.com", Ok("dev:jo-example.com")),
            ("dev:{{SessionNameRaw}}", "jo@example.com", Ok("dev:jo@example.com")),
            ("system:node:{{EC2PrivateDNSName}}", "i-1", Ok("system:node:ip-10-0-0-1.ec2.internal")),
            (
                "system:node:{{EC2PrivateDNSName}}",
                "i-2",
                Err("session \"i-2\" is no instance whose name is known"),
            ),
            ("{{SessionName}}", "", Err("{{SessionName}} is for roles: the principal has no session")),
            ("{{Other}}", "s", Err("{{Other}} is nothing that is known")),
            ("{{SessionName", "s", Err("username \"{{SessionName\": a {{ has no end")),
            ("", "s", Err("the username is empty")),
        ] {
            let filled = fill(template, &of(session));
            assert_eq!(filled.as_deref().map_err(|why| &**why), wanted, "{template}");
        }
    }
}
