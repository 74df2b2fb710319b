# AWS IoT: what devices may do, and how it tells the service of certificates that it sees for the first time (JITR).

# One policy for all devices of a product: the variable is the thing's name, which is bound to the certificate and must be the client id.
# The subject and issuer of a certificate decide nothing, because whoever has a CA can write anything into them.
# Shadow topics are included: operators and earlier firmware write shadows, which the device must be able to read.
resource "aws_iot_policy" "device" {
  name = var.device_policy_name
  policy = jsonencode(jsondecode(templatefile("${path.module}/device-policy.json", {
    arn    = local.iot_arn
    topics = var.device_topics
  })))
}

locals {
  jitr      = var.secret_arns.jitr == null ? 0 : 1
  jitr_rule = "${replace(var.name, "-", "_")}_jitr"
  jitr_url  = "https://${coalesce(var.hostname, "unused.invalid")}/v1/jitr/events"
}

# AWS IoT makes the rule's HTTP destination with it and asks the service, which must be up, to confirm it. The secret is read when an
# event is sent: it stands neither in the rule nor in the state.
resource "aws_iot_topic_rule" "jitr" {
  count       = local.jitr
  name        = local.jitr_rule
  description = "Certificates that AWS IoT has registered because of their CA, to the certificate vending machine"
  enabled     = true
  sql         = "SELECT * FROM '$aws/events/certificates/registered/#'"
  sql_version = "2016-03-23"

  http {
    url              = local.jitr_url
    confirmation_url = local.jitr_url

    http_header {
      key   = "X-Jitr-Secret"
      value = "$${get_secret('${var.secret_arns.jitr}', 'SecretString', 'JITR_SECRET', '${aws_iam_role.jitr[0].arn}')}"
    }
  }

  # AWS IoT tries three times within three seconds. A device that is not activated connects again, and with that comes the next event.
  error_action {
    sqs {
      queue_url  = aws_sqs_queue.jitr_dead_letters[0].url
      role_arn   = aws_iam_role.jitr[0].arn
      use_base64 = false
    }
  }

  depends_on = [aws_ecs_service.this, aws_iam_role_policy.jitr, aws_route53_record.this]
}

resource "aws_sqs_queue" "jitr_dead_letters" {
  count                     = local.jitr
  name                      = "${var.name}-jitr-dead-letters"
  message_retention_seconds = 14 * 24 * 3600
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue_policy" "jitr_dead_letters" {
  count     = local.jitr
  queue_url = aws_sqs_queue.jitr_dead_letters[0].url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "NothingInTheClear"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = aws_sqs_queue.jitr_dead_letters[0].arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}
