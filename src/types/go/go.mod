module workers/{{name}}

go 1.19
