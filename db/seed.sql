-- The demo organizations. Inserted when absent and left alone ever after: what a person changed stays changed.
INSERT INTO organizations (id, name, tier, active) VALUES
    ('00000000-0000-0000-0000-000000000001', 'Acme Corporation', 'enterprise', true),
    ('00000000-0000-0000-0000-000000000002', 'TechStart Inc', 'premium', true),
    ('00000000-0000-0000-0000-000000000003', 'BasicCo LLC', 'basic', true),
    ('00000000-0000-0000-0000-000000000004', 'Inactive Corp', 'basic', false)
ON CONFLICT (id) DO NOTHING;
