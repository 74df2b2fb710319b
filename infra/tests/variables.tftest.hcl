# Every validation refuses what it is there for. A variable that has several is in as many runs.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  image           = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/cvm:1.0.0"
  certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/11111111-2222-3333-4444-555555555555"
  secret_arns     = { token_pepper = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:cvm/token-pepper-AbCdEf" }
}

run "refused" {
  command = plan

  variables {
    image                         = "cvm:latest"
    certificate_arn               = "arn:aws:iam::111122223333:server-certificate/cvm"
    name                          = "Cvm"
    region                        = "Frankfurt"
    hostname                      = "https://cvm.example.com"
    vpc                           = { id = "vpc-1", public_subnet_ids = ["subnet-1", "subnet-2"], private_subnet_ids = ["subnet-3"] }
    vpc_cidr                      = "10.42.0.0/28"
    zones                         = 1
    nat_gateways                  = "none"
    ingress_cidrs                 = ["0.0.0.0"]
    egress_ports                  = [80]
    prometheus_security_group_ids = ["0.0.0.0/0"]
    mtls_port                     = 443
    waf_requests_per_5_minutes    = 99
    cpu_architecture              = "arm64"
    cpu                           = 1000
    min_tasks                     = 0
    shutdown_timeout_ms           = 120000
    settings                      = { log-level = "warn" }
    log_retention_days            = 7
    table_names                   = { devices = "no spaces" }
    kms_key_arn                   = "alias/cvm"
    restore_days                  = 36
    device_policy_name            = "no spaces"
    device_topics                 = "devices/#"
    thing_name_prefix             = "sensor/"
    alarm_topic_arns              = ["on-call@example.com"]
  }

  expect_failures = [
    var.image, var.certificate_arn, var.name, var.region, var.hostname, var.vpc, var.vpc_cidr, var.zones, var.nat_gateways,
    var.ingress_cidrs, var.egress_ports, var.prometheus_security_group_ids, var.mtls_port, var.waf_requests_per_5_minutes,
    var.cpu_architecture, var.cpu, var.min_tasks, var.shutdown_timeout_ms, var.settings, var.log_retention_days,
    var.table_names, var.kms_key_arn, var.restore_days, var.device_policy_name, var.device_topics, var.thing_name_prefix, var.alarm_topic_arns,
  ]
}

# Terraform does not ask what depends on a variable that is wrong itself.
run "refused_with_others" {
  command = plan

  variables {
    image          = "registry.example.com:5000/cvm"
    secret_arns    = { token_pepper = "c2VjcmV0" }
    hosted_zone_id = "Z0123456789ABCDEFGHIJ"
    vpc            = { id = "vpc-1", private_subnet_ids = ["subnet-3", "subnet-4"] }
    memory         = 3000
    max_tasks      = 1
    settings       = { TOKEN_PEPPER = "c2VjcmV0" }
    table_names    = { devices = "one", rate_limits = "one" }

    migration_table_arns = ["iot-cvm-device-info"]
  }

  expect_failures = [var.migration_table_arns, var.image, var.secret_arns, var.hosted_zone_id, var.vpc, var.memory, var.max_tasks, var.settings, var.table_names]
}

run "refused_where_it_is_internal" {
  command = plan

  variables {
    secret_arns = {
      token_pepper = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:cvm/token-pepper-AbCdEf"
      jitr         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:cvm/jitr-AbCdEf"
    }
    hostname = "cvm.example.com"
    internal = true
    vpc      = { id = "vpc-1", public_subnet_ids = ["subnet-1", "subnet-2"], private_subnet_ids = ["subnet-3", "subnet-4"] }
    cpu      = 256
    memory   = 4096

    access_log_days = -1
  }

  expect_failures = [var.secret_arns, var.vpc, var.memory, var.access_log_days]
}

run "refused_for_legacy_clients" {
  command = plan

  variables {
    settings = { LEGACY_CVM = "true" }
  }

  expect_failures = [var.access_log_days]
}
