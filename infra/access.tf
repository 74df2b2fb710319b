# Who may do what in AWS: the service (task role), ECS on its behalf (execution role), AWS IoT's rule (JITR).
# `cvm` needs no more than this: a test compares the task role with the calls that the code makes.

locals {
  things       = "${local.iot_arn}:thing/${var.thing_name_prefix}*"
  certificates = "${local.iot_arn}:cert/*"
  secrets_key  = var.kms_key_arn == null ? [] : [var.kms_key_arn]

  # Registration events name certificates of own authorities.
  has_authorities = var.permissions.authorities || var.secret_arns.jitr != null
  has_migration   = var.permissions.migration || length(var.migration_table_arns) > 0
  has_shadows     = var.permissions.shadows || lookup(var.settings, "LEGACY_CVM", "false") == "true"

  # What is not used is not allowed: a statement that a variable turns on exists only then.
  task_statements = [for each in local.possible_statements : { for name, value in each : name => value if name != "if" } if lookup(each, "if", true)]

  possible_statements = [
    {
      # Single items and indexes: no batch, no deletion. A device's row is never deleted.
      Sid      = "Registry"
      Action   = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
      Resource = aws_dynamodb_table.devices.arn
    },
    {
      # Where a search for orphans goes on, until it has ended. No serial number begins with #.
      Sid       = "Marker"
      Action    = ["dynamodb:PutItem", "dynamodb:DeleteItem"]
      Resource  = aws_dynamodb_table.devices.arn
      Condition = { "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["#*"] } }
    },
    {
      # Only for taking over devices of earlier services (`cvm operator migrate`): all their rows must be found.
      if       = local.has_migration
      Sid      = "Migration"
      Action   = ["dynamodb:Scan"]
      Resource = concat([aws_dynamodb_table.devices.arn], var.migration_table_arns)
    },
    {
      Sid      = "RegistryIndexes"
      Action   = ["dynamodb:Query"]
      Resource = "${aws_dynamodb_table.devices.arn}/index/*"
    },
    {
      Sid      = "RateLimits"
      Action   = ["dynamodb:UpdateItem"]
      Resource = aws_dynamodb_table.rate_limits.arn
    },
    {
      # At the start and each minute the service looks whether what it needs is there. Without these it goes on, and says so in its log.
      Sid      = "TableSetup"
      Action   = ["dynamodb:DescribeTable"]
      Resource = [aws_dynamodb_table.devices.arn, aws_dynamodb_table.rate_limits.arn]
    },
    {
      Sid      = "TimeToLiveSetup"
      Action   = ["dynamodb:DescribeTimeToLive"]
      Resource = aws_dynamodb_table.rate_limits.arn
    },
    {
      # The settings and products name the policies.
      Sid      = "PolicySetup"
      Action   = ["iot:GetPolicy"]
      Resource = "${local.iot_arn}:policy/*"
    },
    {
      # A certificate's id is its digest, which nobody knows before it is made; certificates have no tags either.
      Sid = "Certificates"
      Action = [
        "iot:UpdateCertificate", "iot:DescribeCertificate", "iot:DeleteCertificate",
        "iot:AttachThingPrincipal", "iot:DetachThingPrincipal", "iot:ListPrincipalThings",
        # IAM can say to what a policy is attached, not which: the service's settings and products name it.
        "iot:AttachPolicy", "iot:DetachPolicy",
      ]
      Resource = local.certificates
    },
    {
      # Certificates of authorities; their ids are digests too.
      if       = local.has_authorities
      Sid      = "Authorities"
      Action   = ["iot:DescribeCACertificate", "iot:UpdateCACertificate", "iot:DeleteCACertificate"]
      Resource = "${local.iot_arn}:cacert/*"
    },
    {
      # The destination of the rule for just-in-time registration, which AWS IoT gives its id.
      if       = var.secret_arns.jitr != null
      Sid      = "RuleDestinations"
      Action   = ["iot:ConfirmTopicRuleDestination", "iot:UpdateTopicRuleDestination"]
      Resource = "${local.iot_arn}:ruledestination/http/*"
    },
    {
      Sid      = "Things"
      Action   = ["iot:CreateThing", "iot:ListThingPrincipals"]
      Resource = local.things
    },
    {
      if       = local.has_shadows
      Sid      = "Shadows"
      Action   = ["iot:GetThingShadow", "iot:UpdateThingShadow"]
      Resource = local.things
    },
    {
      # Both are asked about: the thing, and the group, whose names products give.
      Sid      = "ThingGroups"
      Action   = ["iot:AddThingToThingGroup"]
      Resource = [local.things, "${local.iot_arn}:thinggroup/*"]
    },
    {
      # AWS knows no resource for these: what they make has no name yet, and lists are of the account.
      Sid = "NoResource"
      Action = [
        "iot:CreateCertificateFromCsr", "iot:CreateKeysAndCertificate", "iot:DescribeEndpoint", "iot:ListAttachedPolicies", "iot:ListCertificates",
      ]
      Resource = "*"
    },
    {
      if  = local.has_authorities
      Sid = "AuthoritiesNoResource"
      Action = [
        "iot:GetRegistrationCode", "iot:ListCACertificates", "iot:ListCertificatesByCA", "iot:RegisterCACertificate", "iot:RegisterCertificate",
        "iot:RegisterCertificateWithoutCA",
      ]
      Resource = "*"
    },
  ]

  # Only where the image is in a repository of ECR; account, Region, and name with its path.
  ecr = try(regex("^(\\d{12})\\.dkr\\.ecr\\.([a-z0-9-]+)\\.amazonaws\\.com(?:\\.cn)?/([^:@]+)", var.image), null)

  execution_statements = concat(
    [
      {
        Sid      = "Logs"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.this.arn}:*"]
      },
      {
        Sid      = "Secrets"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = [for arn in values(var.secret_arns) : arn if arn != null]
      },
    ],
    [for key in local.secrets_key : {
      Sid      = "SecretsKey"
      Action   = ["kms:Decrypt"]
      Resource = [key]
    }],
    local.ecr == null ? [] : [
      {
        Sid      = "Image"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = ["arn:${local.partition}:ecr:${local.ecr[1]}:${local.ecr[0]}:repository/${local.ecr[2]}"]
      },
      {
        # The token is the account's, for whatever the repositories' own permissions allow.
        Sid      = "ImageLogin"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = ["*"]
      },
    ],
  )
}

resource "aws_iam_role" "task" {
  name               = "${var.name}-${local.region}-task"
  description        = "What the certificate vending machine itself may do"
  assume_role_policy = local.assumed_by_tasks
}

resource "aws_iam_role_policy" "task" {
  name   = "cvm"
  role   = aws_iam_role.task.id
  policy = jsonencode({ Version = "2012-10-17", Statement = [for each in local.task_statements : merge({ Effect = "Allow" }, each)] })
}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-${local.region}-execution"
  description        = "What ECS may do to start the certificate vending machine"
  assume_role_policy = local.assumed_by_tasks
}

resource "aws_iam_role_policy" "execution" {
  name   = "start"
  role   = aws_iam_role.execution.id
  policy = jsonencode({ Version = "2012-10-17", Statement = [for each in local.execution_statements : merge({ Effect = "Allow" }, each)] })
}

resource "aws_iam_role" "jitr" {
  count              = local.jitr
  name               = "${var.name}-${local.region}-jitr"
  description        = "What the rule for registration events may do"
  assume_role_policy = local.assumed_by_the_rule
}

resource "aws_iam_role_policy" "jitr" {
  count = local.jitr
  name  = "events"
  role  = aws_iam_role.jitr[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        { Sid = "DeadLetters", Effect = "Allow", Action = ["sqs:SendMessage"], Resource = aws_sqs_queue.jitr_dead_letters[0].arn },
        { Sid = "Secret", Effect = "Allow", Action = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"], Resource = var.secret_arns.jitr },
      ],
      [for key in local.secrets_key : { Sid = "SecretKey", Effect = "Allow", Action = ["kms:Decrypt"], Resource = key }],
    )
  })
}

locals {
  # The conditions keep others' tasks and rules from being served with these roles.
  assumed_by_tasks = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnLike      = { "aws:SourceArn" = "arn:${local.partition}:ecs:${local.region}:${local.account}:*" }
      }
    }]
  })

  assumed_by_the_rule = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "iot.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnLike      = { "aws:SourceArn" = "${local.iot_arn}:rule/${local.jitr_rule}" }
      }
    }]
  })
}
