{{- define "runcast.name" -}}
{{- if contains "runcast" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-runcast" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "runcast.selector" -}}
app.kubernetes.io/name: runcast
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "runcast.labels" -}}
{{ include "runcast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "runcast.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "runcast.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "runcast.runsNamespace" -}}
{{- .Values.kubectl.namespace | default .Release.Namespace -}}
{{- end -}}

{{- define "runcast.scheme" -}}
{{- if .Values.tls.existingSecret }}HTTPS{{ else }}HTTP{{ end -}}
{{- end -}}

{{/* What must be chosen is chosen, or the chart does not render. */}}
{{- define "runcast.check" -}}
{{- $auth := .Values.auth -}}
{{- $keys := or $auth.secret.existingSecret $auth.keys.existingConfigMap $auth.jwksUrl -}}
{{- if eq $auth.mode "jwt" -}}
{{- if not $keys -}}
{{- fail "auth.mode is jwt: set auth.secret.existingSecret, auth.keys.existingConfigMap or auth.jwksUrl" -}}
{{- end -}}
{{- if and $auth.jwksUrl (not (and $auth.issuer $auth.audience)) -}}
{{- fail "auth.jwksUrl needs auth.issuer and auth.audience" -}}
{{- end -}}
{{- if $auth.allowAnonymous -}}
{{- fail "auth.allowAnonymous goes with auth.mode none" -}}
{{- end -}}
{{- else if not $auth.allowAnonymous -}}
{{- fail "choose who may come in: auth.mode=jwt and its keys, or, only where nobody else can reach the service, auth.allowAnonymous=true" -}}
{{- else if $keys -}}
{{- fail "there are keys, but auth.mode is not jwt" -}}
{{- end -}}
{{- if not (or .Values.redis.url .Values.redis.existingSecret.name) -}}
{{- fail "say where Redis is: redis.url, or redis.existingSecret.name if the URL has a password" -}}
{{- end -}}
{{- if and .Values.redis.url .Values.redis.existingSecret.name -}}
{{- fail "redis.url and redis.existingSecret.name: set one of them" -}}
{{- end -}}
{{- end -}}

{{/* Bytes for limits.max_memory: nine tenths of the memory limit, less 60 MB for
     each kubectl there may be; or nothing without a limit. What the engine `api`
     takes is the broker's own. */}}
{{- define "runcast.maxMemory" -}}
{{- $limit := toString (dig "limits" "memory" "" .Values.resources) -}}
{{- $factors := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "k" 1000 "M" 1000000 "G" 1000000000 -}}
{{- $unit := regexFind "[A-Za-z]+$" $limit -}}
{{- if and $limit (or (not $unit) (hasKey $factors $unit)) -}}
{{- $bytes := mulf (trimSuffix $unit $limit | float64) (get $factors $unit | default 1) -}}
{{- if and .Values.kubectl.enabled (eq .Values.kubectl.engine "command") -}}
{{- $bytes = subf $bytes (mulf 60000000 .Values.kubectl.maxFollows) -}}
{{- end -}}
{{- if lt $bytes 134217728.0 -}}
{{- fail (printf "resources.limits.memory is too little: beside 128Mi for the broker, each of kubectl.maxFollows (%d) takes 60 MB with kubectl.engine command" (int .Values.kubectl.maxFollows)) -}}
{{- end -}}
{{- printf "%.0f" (mulf $bytes 0.9) -}}
{{- end -}}
{{- end -}}

{{/* The environment: settings, of which `settings` wins. */}}
{{- define "runcast.settings" -}}
{{- $values := .Values -}}
{{- $auth := $values.auth -}}
{{- $set := dict
  "SERVER__BIND" "0.0.0.0:8000"
  "SERVER__SHUTDOWN_GRACE" (printf "%ds" (int $values.drain.graceSeconds))
  "KUBECTL__ENABLED" $values.kubectl.enabled
-}}
{{- if $values.redis.url -}}
{{- $_ := set $set "REDIS__URL" $values.redis.url -}}
{{- end -}}
{{- if $values.kubectl.enabled -}}
{{- $_ := set $set "KUBECTL__ENGINE" $values.kubectl.engine -}}
{{- $_ := set $set "KUBECTL__NAMESPACE" (include "runcast.runsNamespace" .) -}}
{{- $_ := set $set "KUBECTL__SELECTOR" $values.kubectl.selector -}}
{{- $_ := set $set "KUBECTL__MAX_FOLLOWS" (int $values.kubectl.maxFollows) -}}
{{- end -}}
{{- if eq $auth.mode "jwt" -}}
{{- $_ := set $set "AUTH__MODE" "jwt" -}}
{{- if $auth.secret.existingSecret -}}
{{- $_ := set $set "AUTH__SECRET_FILE" "/etc/runcast/secret/secret" -}}
{{- end -}}
{{- if $auth.keys.existingConfigMap -}}
{{- $_ := set $set "AUTH__KEYS_FILE" "/etc/runcast/keys/keys" -}}
{{- end -}}
{{- if $auth.jwksUrl -}}
{{- $_ := set $set "AUTH__JWKS_URL" $auth.jwksUrl -}}
{{- end -}}
{{- if $auth.issuer -}}
{{- $_ := set $set "AUTH__ISSUER" $auth.issuer -}}
{{- end -}}
{{- if $auth.audience -}}
{{- $_ := set $set "AUTH__AUDIENCE" $auth.audience -}}
{{- end -}}
{{- else -}}
{{- $_ := set $set "AUTH__ALLOW_ANONYMOUS" true -}}
{{- end -}}
{{- if $values.metrics.enabled -}}
{{- $_ := set $set "METRICS__BIND" (printf "0.0.0.0:%d" (int $values.metrics.port)) -}}
{{- else -}}
{{- $_ := set $set "METRICS__ENABLED" false -}}
{{- end -}}
{{- if $values.tls.existingSecret -}}
{{- $_ := set $set "SERVER__TLS_CERT" "/etc/runcast/tls/tls.crt" -}}
{{- $_ := set $set "SERVER__TLS_KEY" "/etc/runcast/tls/tls.key" -}}
{{- end -}}
{{- with include "runcast.maxMemory" . -}}
{{- $_ := set $set "LIMITS__MAX_MEMORY" . -}}
{{- end -}}
{{- range $section, $keys := $values.settings -}}
{{- range $key, $value := $keys -}}
{{- $_ := set $set (printf "%s__%s" (upper $section) (upper $key)) $value -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $set }}
- name: RUNCAST__{{ $name }}
  {{- if kindIs "slice" $value }}
  value: {{ join "," $value | quote }}
  {{- else if kindIs "float64" $value }}
  value: {{ printf "%v" (int64 $value) | quote }}
  {{- else }}
  value: {{ toString $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}
