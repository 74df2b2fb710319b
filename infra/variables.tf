# What must be said: the image, the certificate of the HTTPS listener, and where the secrets are kept.

variable "image" {
  description = "The service's container image, by tag or digest, such as 123456789012.dkr.ecr.eu-central-1.amazonaws.com/cvm:1.0.0."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a tag or a digest, and not the tag latest: a rollback must find what ran before."
  }
}

variable "certificate_arn" {
  description = "ACM certificate of the HTTPS listener, for the host name that devices are told."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:acm:[a-z0-9-]+:\\d{12}:certificate/[0-9a-f-]+$", var.certificate_arn))
    error_message = "certificate_arn must be the ARN of an ACM certificate in the Region of the load balancer."
  }
}

variable "secret_arns" {
  description = "Secrets of Secrets Manager. token_pepper: its value is TOKEN_PEPPER. api_keys: its value is API_KEYS; without it people need OIDC (settings). jitr: JSON with the one key JITR_SECRET, which AWS IoT shows the service with each registration event; without it there is no just-in-time registration. They are made by hand, so that their values are in no Terraform state and no destroy takes them away: without its pepper the service can check no registered token."
  type = object({
    token_pepper = string
    api_keys     = optional(string)
    jitr         = optional(string)
  })

  validation {
    condition     = alltrue([for arn in values(var.secret_arns) : arn == null || can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\\d{12}:secret:[A-Za-z0-9/_+=.@-]+$", arn))])
    error_message = "secret_arns must be the ARNs of secrets of Secrets Manager."
  }

  validation {
    condition     = var.secret_arns.jitr == null || (var.hostname != null && !var.internal)
    error_message = "secret_arns.jitr needs hostname and a load balancer that is not internal: AWS IoT calls the service from outside, by a name that its certificate is for."
  }
}

# Names and place.

variable "name" {
  description = "Begins the name of whatever is made here, so that several can live in one account and Region."
  type        = string
  default     = "cvm"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 20 of a-z, 0-9 and -, begin with a letter and not end with a hyphen: load balancers and buckets allow no more."
  }
}

variable "region" {
  description = "AWS Region. The provider's own (AWS_REGION, profile) when null."
  type        = string
  default     = null

  validation {
    condition     = var.region == null || can(regex("^[a-z]{2}(-[a-z]+)+-\\d$", var.region))
    error_message = "region must be the name of a Region, such as eu-central-1."
  }
}

variable "tags" {
  description = "Further tags of all resources."
  type        = map(string)
  default     = {}
}

variable "hostname" {
  description = "Host name that devices are told, which certificate_arn is for. The load balancer's own when null, which no certificate of yours is for."
  type        = string
  default     = null

  validation {
    condition     = var.hostname == null || can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.hostname))
    error_message = "hostname must be a DNS name in lower case, such as cvm.example.com, without https://."
  }
}

variable "hosted_zone_id" {
  description = "Route 53 zone in which hostname is made. DNS is yours when null."
  type        = string
  default     = null

  validation {
    condition     = var.hosted_zone_id == null || var.hostname != null
    error_message = "hosted_zone_id is of no use without hostname."
  }
}

# Network.

variable "vpc" {
  description = "VPC to run in. One is made here when null. public_subnet_ids: of the load balancer, none where it is internal; private_subnet_ids: of the tasks, with a way to AWS's public endpoints (NAT). Both in two zones or more."
  type = object({
    id                 = string
    public_subnet_ids  = optional(set(string), [])
    private_subnet_ids = set(string)
  })
  default = null

  validation {
    condition     = var.vpc == null || try(length(var.vpc.private_subnet_ids), 0) >= 2
    error_message = "vpc.private_subnet_ids must be two or more."
  }

  validation {
    condition     = var.vpc == null || (var.internal ? try(length(var.vpc.public_subnet_ids), 0) == 0 : try(length(var.vpc.public_subnet_ids), 0) >= 2)
    error_message = "vpc.public_subnet_ids must be two or more, and none where the load balancer is internal."
  }
}

variable "vpc_cidr" {
  description = "Addresses of the VPC that is made here."
  type        = string
  default     = "10.42.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && can(regex("/(1[6-9]|2[0-4])$", var.vpc_cidr))
    error_message = "vpc_cidr must be an IPv4 network of /16 to /24, such as 10.42.0.0/16."
  }
}

variable "zones" {
  description = "Availability zones of the VPC that is made here."
  type        = number
  default     = 2

  validation {
    condition     = contains([2, 3], var.zones)
    error_message = "zones must be 2 or 3."
  }
}

variable "nat_gateways" {
  description = "NAT gateways of the VPC that is made here: `each` zone has its own, or `one` serves all and takes them along when its zone fails."
  type        = string
  default     = "each"

  validation {
    condition     = contains(["each", "one"], var.nat_gateways)
    error_message = "nat_gateways must be each or one."
  }
}

variable "internal" {
  description = "Whether the load balancer has private addresses only, for a factory's network."
  type        = bool
  default     = false
}

variable "ingress_cidrs" {
  description = "Networks that may reach the load balancer. AWS IoT's events for JITR come from AWS's public addresses."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.ingress_cidrs) > 0 && alltrue([for cidr in var.ingress_cidrs : can(cidrhost(cidr, 0)) && !strcontains(cidr, ":")])
    error_message = "ingress_cidrs must be one or more IPv4 networks, such as 203.0.113.0/24."
  }
}

variable "egress_ports" {
  description = "TCP ports that tasks may reach outside: 443 for AWS and an identity provider; add 80 if CRLs are fetched over plain HTTP."
  type        = set(number)
  default     = [443]

  validation {
    condition     = contains(var.egress_ports, 443) && alltrue([for port in var.egress_ports : port == floor(port) && port >= 1 && port <= 65535])
    error_message = "egress_ports must be ports from 1 to 65535 with 443 among them, which AWS is called on."
  }
}

variable "prometheus_security_group_ids" {
  description = "Security groups that may scrape the tasks' metrics (OPS_PORT). None by default."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.prometheus_security_group_ids : can(regex("^sg-[0-9a-f]+$", id))])
    error_message = "prometheus_security_group_ids must be ids of security groups."
  }
}

variable "mtls_port" {
  description = "Port of a second HTTPS listener that asks for client certificates and passes them on (ALB_MTLS=passthrough), such as 8443, for EST. None when null."
  type        = number
  default     = null

  validation {
    condition     = var.mtls_port == null || (coalesce(var.mtls_port, 8443) != 443 && coalesce(var.mtls_port, 8443) >= 1 && coalesce(var.mtls_port, 8443) <= 65535)
    error_message = "mtls_port must be a port from 1 to 65535, and not 443, which is the other listener's."
  }
}

variable "waf_requests_per_5_minutes" {
  description = "Requests of one address in five minutes above which the firewall refuses it. Well above the service's own limit (RATE_LIMIT_ADDRESS_MAX, 600 a minute), which answers more kindly."
  type        = number
  default     = 6000

  validation {
    condition     = var.waf_requests_per_5_minutes >= 100 && var.waf_requests_per_5_minutes <= 2000000000
    error_message = "waf_requests_per_5_minutes must be from 100 to 2000000000, which is what AWS WAF takes."
  }
}

variable "access_log_days" {
  description = "How many days the load balancer's access logs are kept; 0: it writes none. Not together with LEGACY_CVM, whose clients send their token in the query string, which access logs hold."
  type        = number
  default     = 90

  validation {
    condition     = var.access_log_days >= 0
    error_message = "access_log_days must be 0 or more."
  }

  validation {
    condition     = var.access_log_days == 0 || lookup(var.settings, "LEGACY_CVM", "false") != "true"
    error_message = "LEGACY_CVM needs access_log_days = 0: its clients send their token in the query string, and access logs would keep it."
  }
}

variable "task_tls" {
  description = "Whether the load balancer speaks TLS with the tasks, too (TLS_SELF_SIGNED): each task makes a certificate of its own, which load balancers do not check."
  type        = bool
  default     = false
}

# The service.

variable "cpu_architecture" {
  description = "What the image was built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "cpu_architecture must be X86_64 or ARM64."
  }
}

variable "cpu" {
  description = "CPU units of a task; 1024 are a core. One Node process uses little more than one."
  type        = number
  default     = 1024

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.cpu)
    error_message = "cpu must be 256, 512, 1024, 2048 or 4096."
  }
}

variable "memory" {
  description = "Memory of a task, in MiB."
  type        = number
  default     = 2048

  validation {
    condition     = var.memory >= 2 * var.cpu && var.memory <= min(8 * var.cpu, 30720) && (var.memory % 1024 == 0 || contains([256, 512], var.cpu) && var.memory == 512)
    error_message = "memory must be 2 to 8 times cpu in steps of 1024 (512 goes with 256), which is what Fargate takes."
  }
}

variable "min_tasks" {
  description = "Tasks that always run."
  type        = number
  default     = 2

  validation {
    condition     = var.min_tasks >= 1 && var.min_tasks == floor(var.min_tasks)
    error_message = "min_tasks must be a whole number, 1 or more; 2 survive the loss of a zone."
  }
}

variable "max_tasks" {
  description = "Tasks that run under load. AWS IoT's quotas, not tasks, bound how fast certificates are vended."
  type        = number
  default     = 6

  validation {
    condition     = var.max_tasks >= var.min_tasks && var.max_tasks == floor(var.max_tasks)
    error_message = "max_tasks must be a whole number, no less than min_tasks."
  }
}

variable "shutdown_timeout_ms" {
  description = "SHUTDOWN_TIMEOUT_MS: time for requests in flight after SIGTERM. The container's stop timeout follows it."
  type        = number
  default     = 25000

  validation {
    condition     = var.shutdown_timeout_ms >= 1000 && var.shutdown_timeout_ms <= 110000
    error_message = "shutdown_timeout_ms must be from 1000 to 110000: Fargate kills after 120 seconds at most."
  }
}

variable "settings" {
  description = "Further settings of the service by name, such as { OIDC_ISSUER = \"https://…\", OIDC_AUDIENCE = \"cvm\" }."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "settings must have names of environment variables, such as LOG_LEVEL."
  }

  validation {
    condition     = length(setintersection(keys(var.settings), local.managed_settings)) == 0
    error_message = "settings must not have what has a variable or a fixed value here: ${join(", ", sort(local.managed_settings))}."
  }
}

variable "log_retention_days" {
  description = "How many days logs are kept, audit records among them."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one of CloudWatch's, and a month or more: 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653."
  }
}

# The registry.

variable "table_names" {
  description = "DynamoDB tables: the device registry, and the rate limits that tasks share."
  type = object({
    devices     = optional(string, "iot-cvm-device-info")
    rate_limits = optional(string, "iot-cvm-rate-limits")
  })
  default = {}

  validation {
    condition     = alltrue([for name in values(var.table_names) : can(regex("^[A-Za-z0-9_.-]{3,255}$", name))]) && var.table_names.devices != var.table_names.rate_limits
    error_message = "table_names must be two different names of 3 to 255 of A-Z a-z 0-9 _ . -."
  }
}

variable "kms_key_arn" {
  description = "Customer-managed key of the tables, and of the secrets where they are encrypted with it. AWS's own keys in this account when null."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:\\d{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key (not of an alias)."
  }
}

variable "restore_days" {
  description = "How many days back the registry can be restored to any second."
  type        = number
  default     = 35

  validation {
    condition     = var.restore_days >= 1 && var.restore_days <= 35
    error_message = "restore_days must be from 1 to 35."
  }
}

variable "deletion_protection" {
  description = "Whether the tables and the load balancer refuse to be deleted. Turn it off, apply, and only then destroy."
  type        = bool
  default     = true
}

# AWS IoT.

variable "permissions" {
  description = "What the service may do beside vending, where it is used. authorities: own CAs and their certificates (also on with secret_arns.jitr). migration: reading all rows of the registry for `cvm operator migrate` (also on with migration_table_arns). shadows: reading and writing things' shadows (also on with LEGACY_CVM)."
  type = object({
    authorities = optional(bool, false)
    migration   = optional(bool, false)
    shadows     = optional(bool, false)
  })
  default = {}
}

variable "device_policy_name" {
  description = "Name of the AWS IoT policy that certificates get (IOT_POLICY_NAME)."
  type        = string
  default     = "cvm-device-policy"

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@-]{1,128}$", var.device_policy_name))
    error_message = "device_policy_name must be 1 to 128 of A-Z a-z 0-9 _ + = , . @ -."
  }
}

variable "device_topics" {
  description = "Below which topic a device may publish and subscribe: <device_topics>/<thing name>/… Its shadow topics are always allowed."
  type        = string
  default     = "devices"

  validation {
    condition     = can(regex("^[A-Za-z0-9_.:-]+(/[A-Za-z0-9_.:-]+)*$", var.device_topics))
    error_message = "device_topics must be one or more levels of a topic, without wildcards and variables, such as devices or fleet/eu."
  }
}

variable "thing_name_prefix" {
  description = "What the names of all things begin with, where the products' templates see to it: the service may then touch no other things."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[A-Za-z0-9:_-]{0,127}$", var.thing_name_prefix))
    error_message = "thing_name_prefix must be at most 127 of A-Z a-z 0-9 : _ -."
  }
}

# Who is told.

variable "alarm_topic_arns" {
  description = "SNS topics that are told of alarms. With none, alarms are only seen in CloudWatch."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.alarm_topic_arns : can(regex("^arn:aws[a-z-]*:sns:[a-z0-9-]+:\\d{12}:[A-Za-z0-9_-]+$", arn))])
    error_message = "alarm_topic_arns must be ARNs of SNS topics."
  }
}

variable "migration_table_arns" {
  description = "Tables of earlier certificate vending machines that the service may read to take their devices over (cvm operator migrate --table); empty again afterwards."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.migration_table_arns : can(regex("^arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:\\d{12}:table/[A-Za-z0-9_.-]+$", arn))])
    error_message = "migration_table_arns must be the ARNs of DynamoDB tables."
  }
}
