"""The wire shapes: what requests may say (strict, nothing unknown), what answers look like. OpenAPI is made of them."""
