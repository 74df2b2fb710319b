# What must hold whatever is set: with the required variables alone, with everything turned on, and in a VPC of one's own.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

# What tells these apart.
override_resource {
  target          = aws_security_group.balancer
  override_during = plan
  values          = { id = "sg-00000000000ba1a4c" }
}

override_resource {
  target          = aws_security_group.tasks
  override_during = plan
  values          = { id = "sg-000000000000ta5c5" }
}

override_resource {
  target          = aws_subnet.public
  override_during = plan
  values          = { id = "subnet-0000000000pub11c" }
}

override_resource {
  target          = aws_subnet.private
  override_during = plan
  values          = { id = "subnet-000000000pr1va7e" }
}

variables {
  image           = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/cvm:1.0.0"
  certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/11111111-2222-3333-4444-555555555555"
  secret_arns     = { token_pepper = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:cvm/token-pepper-AbCdEf" }
}

run "required_variables_alone" {
  command = plan

  # The tasks.

  assert {
    condition     = aws_ecs_service.this.network_configuration[0].assign_public_ip == false
    error_message = "Tasks have no public addresses."
  }

  assert {
    condition     = toset(aws_ecs_service.this.network_configuration[0].subnets) == toset(aws_subnet.private[*].id) && length(aws_subnet.private) == 2 && aws_subnet.private[0].id != aws_subnet.public[0].id
    error_message = "Tasks are in the private subnets of two zones."
  }

  assert {
    condition     = alltrue([for subnet in concat(aws_subnet.private, aws_subnet.public) : subnet.map_public_ip_on_launch == false])
    error_message = "No subnet gives public addresses to whatever starts in it."
  }

  assert {
    condition = alltrue([for rule in aws_vpc_security_group_ingress_rule.tasks :
    rule.referenced_security_group_id == aws_security_group.balancer.id && rule.cidr_ipv4 == null && rule.cidr_ipv6 == null && contains([8443, 9464], rule.from_port) && rule.from_port == rule.to_port])
    error_message = "Tasks are reached from the load balancer's security group only, on their two ports."
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.prometheus) == 0
    error_message = "Nobody else reaches the tasks unless he is named."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_egress_rule.tasks : rule.from_port == 443 && rule.to_port == 443])
    error_message = "Tasks call out by HTTPS only."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].readonlyRootFilesystem == true
    error_message = "The root file system is read-only."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].user == "1000:1000" && jsondecode(aws_ecs_task_definition.this.container_definitions)[0].privileged == false
    error_message = "The process is an unprivileged user."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].linuxParameters == { capabilities = { drop = ["ALL"] }, initProcessEnabled = true }
    error_message = "All capabilities are dropped and none is added."
  }

  assert {
    condition     = strcontains(jsondecode(aws_ecs_task_definition.this.container_definitions)[0].healthCheck.command[3], "/livez")
    error_message = "The container's health is whether it lives, not whether it is ready."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].stopTimeout * 1000 > var.shutdown_timeout_ms + 1500 && jsondecode(aws_ecs_task_definition.this.container_definitions)[0].stopTimeout <= 120
    error_message = "SIGKILL comes after SHUTDOWN_TIMEOUT_MS, and no later than Fargate allows."
  }

  assert {
    condition     = length(setintersection(["TOKEN_PEPPER", "API_KEYS", "JITR_SECRET"], jsondecode(aws_ecs_task_definition.this.container_definitions)[0].environment[*].name)) == 0
    error_message = "No secret is in the task definition."
  }

  assert {
    condition     = { for each in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].secrets : each.name => each.valueFrom } == { TOKEN_PEPPER = var.secret_arns.token_pepper }
    error_message = "The pepper comes from Secrets Manager."
  }

  assert {
    condition     = { for each in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].environment : each.name => each.value }["TRUST_PROXY_CIDRS"] == "10.42.0.0/20,10.42.16.0/20"
    error_message = "X-Forwarded-For is believed from the load balancer's subnets only."
  }

  assert {
    condition     = aws_ecs_service.this.deployment_circuit_breaker[0].enable && aws_ecs_service.this.deployment_circuit_breaker[0].rollback
    error_message = "A version that does not start is rolled back."
  }

  assert {
    condition     = aws_ecs_service.this.deployment_minimum_healthy_percent == 100 && aws_ecs_service.this.enable_execute_command == false
    error_message = "A deploy takes no capacity away, and nobody gets a shell."
  }

  # The load balancer.

  assert {
    condition     = aws_lb.this.drop_invalid_header_fields && aws_lb.this.enable_deletion_protection && aws_lb.this.access_logs[0].enabled
    error_message = "The load balancer drops invalid headers, is protected from deletion and keeps access logs."
  }

  assert {
    condition     = aws_lb_listener.https.protocol == "HTTPS" && aws_lb_listener.https.port == 443 && startswith(aws_lb_listener.https.ssl_policy, "ELBSecurityPolicy-TLS13-1-2-")
    error_message = "HTTPS with TLS 1.2 or 1.3."
  }

  assert {
    condition     = length(aws_lb_listener.mtls) == 0 && keys(aws_vpc_security_group_ingress_rule.balancer) == ["443 0.0.0.0/0"]
    error_message = "Nothing but HTTPS is reached from outside."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_egress_rule.balancer : rule.referenced_security_group_id == aws_security_group.tasks.id])
    error_message = "The load balancer reaches the tasks only."
  }

  assert {
    condition     = aws_lb_target_group.this.health_check[0].path == "/readyz" && aws_lb_target_group.this.health_check[0].port == "9464"
    error_message = "The load balancer asks whether tasks are ready."
  }

  assert {
    condition     = one(aws_wafv2_web_acl.this.rule).statement[0].rate_based_statement[0].limit == 6000 && aws_wafv2_web_acl_association.this.resource_arn == aws_lb.this.arn
    error_message = "The firewall limits each address."
  }

  assert {
    condition     = aws_s3_bucket_public_access_block.access_logs.block_public_acls && aws_s3_bucket_public_access_block.access_logs.block_public_policy && aws_s3_bucket_public_access_block.access_logs.ignore_public_acls && aws_s3_bucket_public_access_block.access_logs.restrict_public_buckets
    error_message = "Access logs are not public."
  }

  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.access_logs.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256" && one(aws_s3_bucket_lifecycle_configuration.access_logs.rule).expiration[0].days == 90
    error_message = "Access logs are encrypted and expire."
  }

  assert {
    condition     = aws_cloudwatch_log_group.this.retention_in_days == 365
    error_message = "Logs are kept for a year, not for ever."
  }

  # The tables.

  assert {
    condition     = alltrue([for table in [aws_dynamodb_table.devices, aws_dynamodb_table.rate_limits] : table.server_side_encryption[0].enabled && table.point_in_time_recovery[0].enabled && table.deletion_protection_enabled && table.billing_mode == "PAY_PER_REQUEST"])
    error_message = "Tables are encrypted, restorable, protected from deletion, and on demand."
  }

  assert {
    condition     = aws_dynamodb_table.devices.point_in_time_recovery[0].recovery_period_in_days == 35
    error_message = "The registry can be restored to any second of the last 35 days."
  }

  assert {
    condition     = aws_dynamodb_table.rate_limits.ttl[0].enabled && aws_dynamodb_table.rate_limits.ttl[0].attribute_name == "expire"
    error_message = "Rate limits expire."
  }

  # Permissions.

  assert {
    condition = alltrue([for policy in [aws_iam_role_policy.task, aws_iam_role_policy.execution] : alltrue([for statement in jsondecode(policy.policy).Statement :
    alltrue([for action in flatten([statement.Action]) : can(regex("^[a-z0-9]+:[A-Za-z]+$", action))])])])
    error_message = "No action has a wildcard."
  }

  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_role_policy.task.policy).Statement : statement.Action if contains(flatten([statement.Resource]), "*")])) == toset([
      "iot:CreateCertificateFromCsr", "iot:CreateKeysAndCertificate", "iot:DescribeEndpoint", "iot:ListAttachedPolicies", "iot:ListCertificates",
    ])
    error_message = "Only actions for which AWS knows no resource are allowed on all."
  }

  assert {
    condition     = !can(regex("Scan|CACertificate|CertificatesByCA|RegistrationCode|RegisterCertificate|RuleDestination|Shadow", aws_iam_role_policy.task.policy))
    error_message = "Authorities, migration, JITR and shadows are not allowed unless they are used."
  }

  assert {
    condition     = aws_lb_target_group.this.protocol == "HTTP" && aws_lb_target_group.this.health_check[0].protocol == "HTTP"
    error_message = "The load balancer speaks HTTP with the tasks unless task_tls is set."
  }

  assert {
    condition     = toset(flatten([for statement in jsondecode(aws_iam_role_policy.execution.policy).Statement : statement.Action if contains(flatten([statement.Resource]), "*")])) == toset(["ecr:GetAuthorizationToken"])
    error_message = "Of ECS's actions only the login to ECR, for which AWS knows no resource, is allowed on all."
  }

  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.execution.policy).Statement : statement.Resource if statement.Sid == "Image"]) == ["arn:aws:ecr:eu-central-1:111122223333:repository/cvm"]
    error_message = "ECS may pull this image's repository only."
  }

  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.execution.policy).Statement : statement.Resource if statement.Sid == "Secrets"]) == [var.secret_arns.token_pepper]
    error_message = "ECS may read the named secrets only."
  }

  assert {
    condition = alltrue([for role in [aws_iam_role.task, aws_iam_role.execution] : alltrue([for statement in jsondecode(role.assume_role_policy).Statement :
    statement.Principal == { Service = "ecs-tasks.amazonaws.com" } && statement.Condition.StringEquals["aws:SourceAccount"] == "111122223333"])])
    error_message = "The roles are for this account's tasks only."
  }

  assert {
    condition     = !can(regex("secretsmanager|kms:|iam:|sts:|ecr:|logs:", aws_iam_role_policy.task.policy))
    error_message = "The service itself reads no secrets and has nothing of ECS's role."
  }

  # Devices.

  assert {
    condition = alltrue([for statement in jsondecode(aws_iot_policy.device.policy).Statement :
      alltrue([for resource in flatten([statement.Resource]) : can(regex("/\\$\\{iot:Connection\\.Thing\\.ThingName\\}(/\\*|/shadow/\\*)?$", resource))]) &&
    alltrue([for action in flatten([statement.Action]) : contains(["iot:Connect", "iot:Publish", "iot:Receive", "iot:Subscribe"], action)])])
    error_message = "A device may do things in its thing's name only."
  }

  assert {
    condition     = !can(regex("Certificate\\.(Subject|Issuer)", aws_iot_policy.device.policy))
    error_message = "Nothing is granted by what a certificate says of itself."
  }

  assert {
    condition     = length(aws_iot_topic_rule.jitr) == 0 && length(aws_iam_role.jitr) == 0 && length(aws_sqs_queue.jitr_dead_letters) == 0
    error_message = "There is no just-in-time registration unless its secret is named."
  }

  # Alarms.

  assert {
    condition = toset(output.alarms) == toset([
      "cvm-balancer-errors", "cvm-devices-errors", "cvm-devices-throttled", "cvm-drift", "cvm-errors", "cvm-latency",
      "cvm-rate-limits-errors", "cvm-rate-limits-throttled", "cvm-tasks", "cvm-unhealthy-tasks",
    ])
    error_message = "The alarms are there."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.tasks.treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.tasks.threshold == 2
    error_message = "No data about running tasks is an alarm."
  }

  assert {
    condition     = output.url == "https://cvm-1.eu-central-1.elb.amazonaws.com" && output.mtls_url == null
    error_message = "The URL is the load balancer's own without hostname."
  }
}

run "everything" {
  command = plan

  variables {
    hostname       = "cvm.example.com"
    hosted_zone_id = "Z0123456789ABCDEFGHIJ"
    mtls_port      = 8443
    zones          = 3
    nat_gateways   = "one"
    kms_key_arn    = "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555"
    secret_arns = {
      token_pepper = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:cvm/token-pepper-AbCdEf"
      api_keys     = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:cvm/api-keys-AbCdEf"
      jitr         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:cvm/jitr-AbCdEf"
    }
    settings                      = { LOG_LEVEL = "warn" }
    permissions                   = { authorities = true, migration = true, shadows = true }
    task_tls                      = true
    thing_name_prefix             = "sensor-"
    prometheus_security_group_ids = ["sg-0123456789abcdef0"]
    alarm_topic_arns              = ["arn:aws:sns:eu-central-1:111122223333:on-call"]
    shutdown_timeout_ms           = 110000
  }

  assert {
    condition     = aws_lb_listener.mtls[0].mutual_authentication[0].mode == "passthrough" && aws_lb_listener.mtls[0].port == 8443 && aws_lb_listener.mtls[0].protocol == "HTTPS" && aws_lb_listener.mtls[0].ssl_policy == aws_lb_listener.https.ssl_policy
    error_message = "The second listener asks for client certificates, with the same TLS."
  }

  assert {
    condition = alltrue([for name, listener in { https = aws_lb_listener.https, mtls = aws_lb_listener.mtls[0] } :
      one(one(aws_lb_listener_rule.no_client_certificate[name].condition).http_header).http_header_name == "X-Amzn-Mtls-Clientcert" &&
    aws_lb_listener_rule.no_client_certificate[name].listener_arn == listener.arn && aws_lb_listener_rule.no_client_certificate[name].action[0].type == "fixed-response"])
    error_message = "On no listener can a client claim a certificate by the header."
  }

  assert {
    condition     = aws_lb_target_group.this.protocol == "HTTPS" && aws_lb_target_group.this.health_check[0].protocol == "HTTP" && { for each in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].environment : each.name => each.value }["TLS_SELF_SIGNED"] == "true"
    error_message = "The load balancer speaks TLS with the tasks, and asks for their health as before."
  }

  assert {
    condition     = aws_lb.this.name == "cvm" && aws_route53_record.this[0].name == "cvm.example.com" && output.url == "https://cvm.example.com" && output.mtls_url == "https://cvm.example.com:8443"
    error_message = "The host name points to the load balancer."
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_subnet.private) == 3 && length(aws_route_table.private) == 3
    error_message = "One NAT gateway serves three zones."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].stopTimeout == 115
    error_message = "The longest shutdown fits Fargate's limit."
  }

  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.prometheus : [rule.referenced_security_group_id, rule.from_port, rule.to_port]] == [["sg-0123456789abcdef0", 9464, 9464]]
    error_message = "Prometheus reaches the ops port only."
  }

  assert {
    condition     = aws_dynamodb_table.devices.server_side_encryption[0].kms_key_arn == var.kms_key_arn && one([for statement in jsondecode(aws_iam_role_policy.execution.policy).Statement : statement.Resource if statement.Sid == "SecretsKey"]) == [var.kms_key_arn]
    error_message = "The customer's key is used for the tables, and for the secrets by ECS."
  }

  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.task.policy).Statement : statement.Resource if statement.Sid == "Things"]) == "arn:aws:iot:eu-central-1:111122223333:thing/sensor-*"
    error_message = "The service may touch things of the prefix only."
  }

  assert {
    condition     = startswith(one(aws_iot_topic_rule.jitr[0].http).url, "https://cvm.example.com/v1/jitr/events") && aws_iot_topic_rule.jitr[0].sql == "SELECT * FROM '$aws/events/certificates/registered/#'"
    error_message = "Registration events go to the service."
  }

  assert {
    condition     = one(one(aws_iot_topic_rule.jitr[0].http).http_header).value == "$${get_secret('${var.secret_arns.jitr}', 'SecretString', 'JITR_SECRET', '${aws_iam_role.jitr[0].arn}')}"
    error_message = "The rule reads its secret when it runs; it does not hold it."
  }

  assert {
    condition     = one(aws_iot_topic_rule.jitr[0].error_action[0].sqs).queue_url == aws_sqs_queue.jitr_dead_letters[0].url && aws_sqs_queue.jitr_dead_letters[0].sqs_managed_sse_enabled && aws_sqs_queue.jitr_dead_letters[0].message_retention_seconds == 1209600
    error_message = "Events that are not delivered are kept, encrypted, for two weeks."
  }

  assert {
    condition = alltrue([for statement in jsondecode(aws_iam_role_policy.jitr[0].policy).Statement :
    !contains(flatten([statement.Resource]), "*") && alltrue([for action in statement.Action : !strcontains(action, "*")])])
    error_message = "The rule's role has no wildcard."
  }

  assert {
    condition     = one(jsondecode(aws_iam_role.jitr[0].assume_role_policy).Statement).Condition.ArnLike["aws:SourceArn"] == "arn:aws:iot:eu-central-1:111122223333:rule/cvm_jitr"
    error_message = "The rule's role is for this rule only."
  }

  assert {
    condition     = contains(output.alarms, "cvm-jitr-dead-letters") && contains(output.alarms, "cvm-jitr-throttled") && alltrue([for alarm in aws_cloudwatch_metric_alarm.single : alarm.alarm_actions == toset(["arn:aws:sns:eu-central-1:111122223333:on-call"])])
    error_message = "JITR has its alarms, and somebody is told."
  }
}

run "vpc_of_ones_own" {
  command = plan

  variables {
    image    = "registry.example.com/cvm@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    internal = true
    vpc      = { id = "vpc-0123456789abcdef0", private_subnet_ids = ["subnet-00000001", "subnet-00000002"] }
  }

  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.public) + length(aws_nat_gateway.this) + length(aws_vpc_endpoint.gateway) == 0
    error_message = "Nothing of a network is made."
  }

  assert {
    condition     = aws_lb.this.internal && aws_lb.this.subnets == toset(["subnet-00000001", "subnet-00000002"]) && toset(aws_ecs_service.this.network_configuration[0].subnets) == toset(["subnet-00000001", "subnet-00000002"])
    error_message = "The load balancer and the tasks are in the private subnets."
  }

  assert {
    condition     = { for each in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].environment : each.name => each.value }["TRUST_PROXY_CIDRS"] == "192.0.2.0/24,192.0.2.0/24"
    error_message = "X-Forwarded-For is believed from these subnets."
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.execution.policy, "ecr:")
    error_message = "ECS has no permissions for ECR when the image is elsewhere."
  }
}

run "legacy_clients" {
  command = plan

  variables {
    settings        = { LEGACY_CVM = "true" }
    access_log_days = 0
  }

  assert {
    condition     = !aws_lb.this.access_logs[0].enabled
    error_message = "No access log holds the query strings with tokens."
  }

  assert {
    condition     = strcontains(aws_iam_role_policy.task.policy, "UpdateThingShadow") && !strcontains(aws_iam_role_policy.task.policy, "CACertificate")
    error_message = "Earlier clients write shadows; nothing else is allowed with them."
  }
}

run "one_permission_each" {
  command = plan

  variables {
    migration_table_arns = ["arn:aws:dynamodb:eu-central-1:111122223333:table/earlier"]
  }

  assert {
    condition     = strcontains(aws_iam_role_policy.task.policy, "dynamodb:Scan") && !can(regex("CACertificate|RuleDestination|Shadow", aws_iam_role_policy.task.policy))
    error_message = "A table to migrate from allows reading it, and nothing else."
  }
}
