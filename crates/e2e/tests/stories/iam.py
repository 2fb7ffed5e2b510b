"""IAM and STS as boto3 sees them. Ends with an error at the first surprise."""

import json

from prelude import ACCOUNT, IAM, SESSION, check, refused


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def trust(principal, action="sts:AssumeRole", **more):
    return policy({"Effect": "Allow", "Principal": principal, "Action": action, **more})


def user(credentials):
    names = {"AccessKeyId": "aws_access_key_id", "SecretAccessKey": "aws_secret_access_key",
             "SessionToken": "aws_session_token"}
    given = {names[key]: value for key, value in credentials.items() if key in names}
    return lambda service: SESSION.client(service, **given)


def usual_roles():
    """What the first commands of a tutorial name is there."""
    for name, service, attached in [
        ("AmazonEKSClusterRole", "eks.amazonaws.com", "AmazonEKSClusterPolicy"),
        ("AmazonEKSNodeRole", "ec2.amazonaws.com", "AmazonEKSWorkerNodePolicy"),
        ("AmazonEKSFargatePodExecutionRole", "eks-fargate-pods.amazonaws.com", "AmazonEKSFargatePodExecutionRolePolicy"),
    ]:
        role = IAM.get_role(RoleName=name)["Role"]
        check(name, role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"], {"Service": service})
        policies = IAM.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        check(name, attached in [one["PolicyName"] for one in policies], True)
    profile = IAM.get_instance_profile(InstanceProfileName="AmazonEKSNodeRole")["InstanceProfile"]
    check("the node's profile", [role["RoleName"] for role in profile["Roles"]], ["AmazonEKSNodeRole"])


def terraforms_role():
    """The calls of aws_iam_role, aws_iam_policy and aws_iam_instance_profile: create, read, update, destroy."""
    arn = f"arn:aws:iam::{ACCOUNT}:policy/app"
    check("a policy", IAM.create_policy(PolicyName="app", PolicyDocument=policy(allow("s3:*")))["Policy"]["Arn"], arn)
    made = IAM.create_role(RoleName="app", AssumeRolePolicyDocument=trust({"Service": "ec2.amazonaws.com"}),
                           Tags=[{"Key": "team", "Value": "web"}], MaxSessionDuration=7200)["Role"]
    check("a role", made["Arn"], f"arn:aws:iam::{ACCOUNT}:role/app")
    IAM.get_waiter("role_exists").wait(RoleName="app")
    read = IAM.get_role(RoleName="app")["Role"]
    check("its trust", read["AssumeRolePolicyDocument"], json.loads(trust({"Service": "ec2.amazonaws.com"})))
    check("its tags", read["Tags"], [{"Key": "team", "Value": "web"}])
    check("no policies", IAM.list_role_policies(RoleName="app")["PolicyNames"], [])
    IAM.attach_role_policy(RoleName="app", PolicyArn=arn)
    IAM.put_role_policy(RoleName="app", PolicyName="own", PolicyDocument=policy(allow("sqs:*")))
    check("its own", IAM.get_role_policy(RoleName="app", PolicyName="own")["PolicyDocument"]["Statement"], [allow("sqs:*")])
    check("a version", IAM.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"],
          json.loads(policy(allow("s3:*"))))
    check("who has it", [one["RoleName"] for one in IAM.list_entities_for_policy(PolicyArn=arn)["PolicyRoles"]], ["app"])
    IAM.create_instance_profile(InstanceProfileName="app")
    IAM.get_waiter("instance_profile_exists").wait(InstanceProfileName="app")
    IAM.add_role_to_instance_profile(InstanceProfileName="app", RoleName="app")
    check("its profiles", len(IAM.list_instance_profiles_for_role(RoleName="app")["InstanceProfiles"]), 1)
    refused("a role in use", lambda: IAM.delete_role(RoleName="app"), "DeleteConflict", "instance profile first", 409)
    IAM.remove_role_from_instance_profile(InstanceProfileName="app", RoleName="app")
    IAM.delete_instance_profile(InstanceProfileName="app")
    refused("a role with policies", lambda: IAM.delete_role(RoleName="app"), "DeleteConflict", "detach all policies", 409)
    refused("a policy in use", lambda: IAM.delete_policy(PolicyArn=arn), "DeleteConflict", status=409)
    IAM.detach_role_policy(RoleName="app", PolicyArn=arn)
    IAM.delete_role_policy(RoleName="app", PolicyName="own")
    IAM.delete_role(RoleName="app")
    IAM.delete_policy(PolicyArn=arn)
    refused("gone", lambda: IAM.get_role(RoleName="app"), "NoSuchEntity", "The role with name app cannot be found.", 404)


def refusals():
    refused("no policy", lambda: IAM.create_policy(PolicyName="p", PolicyDocument="{"), "MalformedPolicyDocument", status=400)
    refused("no trust", lambda: IAM.create_role(RoleName="r", AssumeRolePolicyDocument=trust({"AWS": "nobody"})),
            "MalformedPolicyDocument", 'Invalid principal in policy: "AWS":"nobody"', 400)
    refused("twice", lambda: IAM.create_user(UserName="admin"), "EntityAlreadyExists", status=409)
    refused("nobody", lambda: IAM.get_user(UserName="nobody"), "NoSuchEntity", status=404)
    refused("no name", lambda: IAM.create_user(UserName="a/b"), "ValidationError", status=400)


def permissions():
    IAM.create_user(UserName="alice")
    alice = user(IAM.create_access_key(UserName="alice")["AccessKey"])
    who = f"User: arn:aws:iam::{ACCOUNT}:user/alice is not authorized to perform: "
    check("who one is needs no permission", alice("sts").get_caller_identity()["Arn"], f"arn:aws:iam::{ACCOUNT}:user/alice")
    refused("nothing is allowed", alice("iam").list_users, "AccessDenied",
            f"{who}iam:ListUsers on resource: arn:aws:iam::{ACCOUNT}:user/ because no identity-based policy allows the iam:ListUsers action", 403)
    refused("EKS says it its way", alice("eks").list_clusters, "AccessDeniedException", f"{who}eks:ListClusters", 403)
    refused("and EC2", alice("ec2").describe_vpcs, "UnauthorizedOperation", "not authorized to perform", 403)
    IAM.put_user_policy(UserName="alice", PolicyName="p", PolicyDocument=policy(
        allow(["iam:*", "eks:List*"], Condition={"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}),
        {"Effect": "Deny", "Action": "iam:DeleteUser", "Resource": "*"}))
    alice("eks").list_clusters()
    alice("iam").list_users()
    refused("a deny", lambda: alice("iam").delete_user(UserName="alice"), "AccessDenied", "with an explicit deny in an identity-based policy", 403)
    IAM.put_user_policy(UserName="alice", PolicyName="p", PolicyDocument=policy(
        allow("iam:*", Condition={"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}})))
    refused("from elsewhere", alice("iam").list_users, "AccessDenied", status=403)
    return alice


def sessions(alice):
    role = f"arn:aws:iam::{ACCOUNT}:role/dev"
    IAM.create_role(RoleName="dev", AssumeRolePolicyDocument=trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/alice"}))
    IAM.attach_role_policy(RoleName="dev", PolicyArn="arn:aws:iam::aws:policy/IAMReadOnlyAccess")
    refused("the administrator is not trusted", lambda: SESSION.client("sts").assume_role(RoleArn=role, RoleSessionName="jo"),
            "AccessDenied", f"is not authorized to perform: sts:AssumeRole on resource: {role}", 403)
    given = alice("sts").assume_role(RoleArn=role, RoleSessionName="jo")
    check("a session", given["AssumedRoleUser"]["Arn"], f"arn:aws:sts::{ACCOUNT}:assumed-role/dev/jo")
    dev = user(given["Credentials"])
    dev("iam").list_roles()
    refused("only reads", lambda: dev("iam").create_user(UserName="x"), "AccessDenied", "assumed-role/dev/jo is not authorized", 403)
    narrow = user(alice("sts").assume_role(RoleArn=role, RoleSessionName="jo", Policy=policy(allow("iam:GetRole")))["Credentials"])
    narrow("iam").get_role(RoleName="dev")
    refused("narrower", narrow("iam").list_roles, "AccessDenied", "because no session policy allows", 403)
    refused("no token", lambda: SESSION.client("sts").assume_role_with_web_identity(
        RoleArn=role, RoleSessionName="jo", WebIdentityToken="a.b.c"), "InvalidIdentityToken", status=400)
    IAM.detach_role_policy(RoleName="dev", PolicyArn="arn:aws:iam::aws:policy/IAMReadOnlyAccess")
    refused("at once", dev("iam").list_roles, "AccessDenied", status=403)
    IAM.delete_role(RoleName="dev")
    refused("a session without its role", dev("iam").list_roles, "InvalidClientTokenId", status=403)


def pages():
    for number in range(7):
        IAM.create_group(GroupName=f"group-{number}")
    pages = list(IAM.get_paginator("list_groups").paginate(PaginationConfig={"PageSize": 3}))
    check("pages", [len(page["Groups"]) for page in pages], [3, 3, 1])
    check("truncated", [page["IsTruncated"] for page in pages], [True, True, False])
    for number in range(7):
        IAM.delete_group(GroupName=f"group-{number}")


usual_roles()
terraforms_role()
refusals()
sessions(permissions())
pages()
