# The service on ECS Fargate: how a task looks, how many there are, and how a new version takes over.

locals {
  # SIGTERM, unready, requests in flight, the clients' ends (the README's "a second and a half"), and some air.
  drain_delay_ms       = 0
  stop_timeout_seconds = ceil((local.drain_delay_ms + var.shutdown_timeout_ms + 1500) / 1000) + 3

  environment = merge(var.settings, {
    NODE_ENV            = "production"
    AWS_REGION          = local.region
    AWS_ACCOUNT_ID      = local.account
    PORT                = tostring(local.service_port)
    OPS_PORT            = tostring(local.ops_port)
    TRUST_PROXY_CIDRS   = join(",", local.balancer_cidrs)
    ALB_MTLS            = var.mtls_port == null ? "off" : "passthrough"
    TLS_SELF_SIGNED     = tostring(var.task_tls)
    DEVICE_TABLE        = aws_dynamodb_table.devices.name
    RATE_LIMIT_STORE    = "dynamodb"
    RATE_LIMIT_TABLE    = aws_dynamodb_table.rate_limits.name
    IOT_POLICY_NAME     = aws_iot_policy.device.name
    SHUTDOWN_TIMEOUT_MS = tostring(var.shutdown_timeout_ms)
    # ECS takes a task out of the load balancer, and waits until it is, before it sends SIGTERM.
    DRAIN_DELAY_MS = tostring(local.drain_delay_ms)
  })

  # ECS reads these when a task starts; they are in no task definition.
  secrets = merge(
    { TOKEN_PEPPER = var.secret_arns.token_pepper },
    var.secret_arns.api_keys == null ? {} : { API_KEYS = var.secret_arns.api_keys },
    var.secret_arns.jitr == null ? {} : { JITR_SECRET = "${var.secret_arns.jitr}:JITR_SECRET::" },
  )

  # What may not be given as a setting, because it is decided here or is a secret.
  managed_settings = toset([
    "NODE_ENV", "AWS_REGION", "PORT", "OPS_PORT", "HOST", "TRUST_PROXY_CIDRS", "ALB_MTLS", "DEVICE_TABLE", "RATE_LIMIT_STORE", "RATE_LIMIT_TABLE",
    "IOT_POLICY_NAME", "SHUTDOWN_TIMEOUT_MS", "DRAIN_DELAY_MS", "TOKEN_PEPPER", "API_KEYS", "JITR_SECRET", "AWS_ACCOUNT_ID", "CVM_LOCAL", "CREATE_TABLES",
    "TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_SELF_SIGNED",
  ])
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/ecs/${var.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_ecs_cluster" "this" {
  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  # A rollback needs the revisions before this one.
  skip_destroy = true

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }

  container_definitions = jsonencode([{
    name                   = "cvm"
    image                  = var.image
    essential              = true
    user                   = "1000:1000"
    privileged             = false
    readonlyRootFilesystem = true
    # With a process 1 that passes SIGTERM on also before Node has a handler for it: a task that is stopped while it starts ends at once.
    linuxParameters = { capabilities = { drop = ["ALL"] }, initProcessEnabled = true }
    # The service takes as many connections as it has descriptors for, less those for AWS.
    ulimits     = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
    stopTimeout = local.stop_timeout_seconds

    portMappings = [for port in [local.service_port, local.ops_port] : { containerPort = port, protocol = "tcp" }]
    environment  = [for name, value in local.environment : { name = name, value = value }]
    secrets      = [for name, arn in local.secrets : { name = name, valueFrom = arn }]

    # Alive, not ready: a task that drains or sheds load must not be killed for it. ECS does not look at the image's own check.
    healthCheck = {
      command     = ["CMD", "node", "-e", "fetch('http://127.0.0.1:${local.ops_port}/livez').then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 20
    }

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = local.region
        awslogs-stream-prefix = "cvm"
      }
    }
  }])
}

resource "aws_ecs_service" "this" {
  name                              = var.name
  cluster                           = aws_ecs_cluster.this.id
  task_definition                   = aws_ecs_task_definition.this.arn
  launch_type                       = "FARGATE"
  desired_count                     = var.min_tasks
  health_check_grace_period_seconds = 60
  enable_execute_command            = false
  propagate_tags                    = "SERVICE"
  availability_zone_rebalancing     = "ENABLED"

  # The old tasks stay until as many new ones are healthy.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # An apply that ends well has a service that serves; a version that does not start makes it fail.
  wait_for_steady_state = true

  network_configuration {
    subnets          = local.private_subnet_ids
    security_groups  = [aws_security_group.tasks.id]
    assign_public_ip = false
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.this.arn
    container_name   = "cvm"
    container_port   = local.service_port
  }

  # Scaling sets it from here on.
  lifecycle {
    ignore_changes = [desired_count]
  }

  # A target group is taken only once a listener has it, and without its permissions and its way out a task does not start.
  depends_on = [
    aws_lb_listener.https,
    aws_iam_role_policy.task,
    aws_iam_role_policy.execution,
    aws_vpc_security_group_egress_rule.tasks,
    aws_vpc_security_group_ingress_rule.tasks,
    aws_vpc_security_group_egress_rule.balancer,
    aws_route_table_association.private,
  ]
}

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.this.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.min_tasks
  max_capacity       = var.max_tasks
}

# Signatures and TLS cost the time; requests do not cost alike (a batch is one of them).
resource "aws_appautoscaling_policy" "cpu" {
  name               = "${var.name}-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  resource_id        = aws_appautoscaling_target.this.resource_id
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = 60
    scale_out_cooldown = 60
    scale_in_cooldown  = 300

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}
