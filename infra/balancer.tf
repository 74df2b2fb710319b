# The load balancer with its listeners and logs, the firewall in front of it, and its name.

locals {
  service_port   = 8443
  ops_port       = 9464
  listener_ports = concat([443], var.mtls_port == null ? [] : [var.mtls_port])

  # TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers only. Device firmware of the last ten years speaks it.
  tls_policy = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06"
}

resource "aws_lb" "this" {
  name                       = var.name
  internal                   = var.internal
  load_balancer_type         = "application"
  subnets                    = local.balancer_subnet_ids
  security_groups            = [aws_security_group.balancer.id]
  enable_deletion_protection = var.deletion_protection
  drop_invalid_header_fields = true
  # Shorter than the service's keep-alive of 72 seconds, so that no request is sent on a connection that is being closed.
  idle_timeout = 60

  access_logs {
    bucket  = aws_s3_bucket.access_logs.bucket
    enabled = var.access_log_days > 0
  }

  depends_on = [aws_s3_bucket_policy.access_logs]
}

resource "aws_lb_target_group" "this" {
  # The protocol cannot change: another one is another target group, which is there before this one goes.
  name                 = var.task_tls ? "${var.name}-tls" : var.name
  vpc_id               = local.vpc_id
  target_type          = "ip"
  protocol             = var.task_tls ? "HTTPS" : "HTTP"
  port                 = local.service_port
  deregistration_delay = 60

  # Ready says whether this task can serve, whatever AWS IoT and DynamoDB do; it is not asked on the service's own port.
  health_check {
    protocol            = "HTTP"
    port                = local.ops_port
    path                = "/readyz"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }

  lifecycle {
    create_before_destroy = true
  }
}

# There is no listener on port 80: a redirect would come after the token has been sent in the clear.
resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = local.tls_policy
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

# The service believes the client certificate that this header holds. A client that sends the header itself made it up: the first listener asks
# for no certificate, and whether the second one replaces a header of that name is not documented by AWS and was not verified. Rules see the
# request as the client sent it.
resource "aws_lb_listener_rule" "no_client_certificate" {
  for_each     = var.mtls_port == null ? {} : { https = aws_lb_listener.https.arn, mtls = aws_lb_listener.mtls[0].arn }
  listener_arn = each.value
  priority     = 1

  condition {
    http_header {
      http_header_name = "X-Amzn-Mtls-Clientcert"
      values           = ["*"]
    }
  }

  action {
    type = "fixed-response"

    fixed_response {
      status_code  = "400"
      content_type = "application/json"
      message_body = jsonencode({ status = 400, code = "invalid-request", title = "X-Amzn-Mtls-Clientcert is the load balancer's to send" })
    }
  }
}

# The handshake proves that the client has the key; whose certificate it is, the service judges.
resource "aws_lb_listener" "mtls" {
  count             = var.mtls_port == null ? 0 : 1
  load_balancer_arn = aws_lb.this.arn
  port              = var.mtls_port
  protocol          = "HTTPS"
  ssl_policy        = local.tls_policy
  certificate_arn   = var.certificate_arn

  mutual_authentication {
    mode = "passthrough"
  }

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

resource "aws_route53_record" "this" {
  count   = var.hosted_zone_id == null ? 0 : 1
  zone_id = var.hosted_zone_id
  name    = var.hostname
  type    = "A"

  alias {
    name                   = aws_lb.this.dns_name
    zone_id                = aws_lb.this.zone_id
    evaluate_target_health = false
  }
}

# Who called, when, from where: no tokens, which are in bodies.
resource "aws_s3_bucket" "access_logs" {
  bucket_prefix = "${var.name}-access-logs-"
  force_destroy = !var.deletion_protection
}

resource "aws_s3_bucket_public_access_block" "access_logs" {
  bucket                  = aws_s3_bucket.access_logs.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# Load balancers can write to no bucket with a key of KMS.
resource "aws_s3_bucket_server_side_encryption_configuration" "access_logs" {
  bucket = aws_s3_bucket.access_logs.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "access_logs" {
  bucket = aws_s3_bucket.access_logs.id

  rule {
    id     = "expire"
    status = "Enabled"
    filter {}

    expiration {
      days = max(var.access_log_days, 1)
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

resource "aws_s3_bucket_policy" "access_logs" {
  bucket = aws_s3_bucket.access_logs.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "LoadBalancerWrites"
        Effect    = "Allow"
        Principal = { Service = "logdelivery.elasticloadbalancing.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${aws_s3_bucket.access_logs.arn}/AWSLogs/${local.account}/*"
      },
      {
        Sid       = "NothingInTheClear"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.access_logs.arn, "${aws_s3_bucket.access_logs.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })

  depends_on = [aws_s3_bucket_public_access_block.access_logs]
}

# The service limits each address and serial number itself and says when to come back; this is for floods that it should not even see.
resource "aws_wafv2_web_acl" "this" {
  name  = var.name
  scope = "REGIONAL"

  default_action {
    allow {}
  }

  custom_response_body {
    key          = "rate-limited"
    content_type = "APPLICATION_JSON"
    content      = jsonencode({ status = 429, code = "rate-limited", title = "Too many requests" })
  }

  rule {
    name     = "rate"
    priority = 1

    action {
      block {
        custom_response {
          response_code            = 429
          custom_response_body_key = "rate-limited"

          response_header {
            name  = "Retry-After"
            value = "300"
          }
        }
      }
    }

    statement {
      rate_based_statement {
        limit                 = var.waf_requests_per_5_minutes
        aggregate_key_type    = "IP"
        evaluation_window_sec = 300
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "${var.name}-rate"
      sampled_requests_enabled   = false
    }
  }

  # Sampled requests would show headers, and with them API keys.
  visibility_config {
    cloudwatch_metrics_enabled = true
    metric_name                = var.name
    sampled_requests_enabled   = false
  }
}

resource "aws_wafv2_web_acl_association" "this" {
  resource_arn = aws_lb.this.arn
  web_acl_arn  = aws_wafv2_web_acl.this.arn
}
